"""The table reader, on CSV and JSON-lines files."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from corpus_files import refused, touch

from sia.data.corpora import read
from sia.data.manifest import SpokenCaption
from sia.errors import UsageError

HEADER = "utterance_id,image_id,speech_path,image_path,split"
SPLITS = ("train", "validation", "test")


def row(number: int, split: str = "train", **more: Any) -> dict[str, Any]:
    paths = {"speech_path": f"wavs/{number}.wav", "image_path": f"images/{number}.jpg"}
    return {"utterance_id": f"u{number}", "image_id": f"i{number}", **paths, "split": split, **more}


def rows(**more: Any) -> list[dict[str, Any]]:
    """One caption a split."""
    return [row(number, split, **more) for number, split in enumerate(SPLITS)]


def write_csv(path: Path, content: list[dict[str, Any]], **options: Any) -> Path:
    with open(path, "w", newline="", encoding=options.pop("encoding", "utf-8")) as stream:
        writer = csv.DictWriter(stream, list(content[0]), **options)
        writer.writeheader()
        writer.writerows(content)
    return path


def write_jsonl(path: Path, content: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(item) + "\n" for item in content))
    return path


WRITERS = {".csv": write_csv, ".jsonl": write_jsonl}


@pytest.mark.parametrize("suffix", WRITERS)
def test_a_row_becomes_a_caption(tmp_path: Path, suffix: str) -> None:
    table = WRITERS[suffix](tmp_path / f"any{suffix}", rows(speaker="s", language="nl", text="een hond", mood="sad"))
    reading = read("table", table)
    assert reading.captions[0] == SpokenCaption(
        "u0", "i0", str(tmp_path / "wavs/0.wav"), str(tmp_path / "images/0.jpg"), "train", "s", "nl", "een hond"
    )
    assert [c.split for c in reading.captions] == list(SPLITS)
    assert read("table", tmp_path) == reading, "the folder that holds it is a root too"
    assert not reading.dropped and not reading.notes


def test_a_csv_of_a_spreadsheet(tmp_path: Path) -> None:
    """A byte order mark, CRLF, quoted commas, quotes and line ends, spaces after commas, blank lines, short names."""
    lines = [
        f"{HEADER},text",
        'u0,i0, 0.wav,"a, b.jpg",train,"A dog, ""Rex"", runs."',
        "",
        'u1,i1,1.wav,1.jpg,val,"two\r\nlines"',
        "u2,i2,2.wav,2.jpg,test",
        "",
    ]
    (tmp_path / "a.csv").write_bytes(b"\xef\xbb\xbf" + "\r\n".join(lines).encode())
    captions = read("table", tmp_path).captions
    assert [c.text for c in captions] == ['A dog, "Rex", runs.', "two\nlines", ""]
    assert captions[0].image_path == str(tmp_path / "a, b.jpg")
    assert captions[0].speech_path == str(tmp_path / "0.wav")
    assert [c.split for c in captions] == ["train", "validation", "test"]


@pytest.mark.parametrize("delimiter", [";", "\t"])
def test_a_csv_with_other_marks_and_capitals(tmp_path: Path, delimiter: str) -> None:
    content = [{"Audio": f"{number}.wav", "Image": f"a, {number}.jpg"} for number in range(5)]
    captions = read("table", write_csv(tmp_path / "a.csv", content, delimiter=delimiter)).captions
    assert [c.image_id for c in captions] == [f"a, {number}.jpg" for number in range(5)]


def test_numbers_in_json_lines_become_text(tmp_path: Path) -> None:
    content = [{**item, "utterance_id": number, "image_id": 7 + number} for number, item in enumerate(rows(speaker=3))]
    content[1]["split"] = "dev"
    captions = read("table", write_jsonl(tmp_path / "a.jsonl", content)).captions
    named = [(c.utterance_id, c.image_id, c.speaker) for c in captions]
    assert named == [("0", "7", "3"), ("1", "8", "3"), ("2", "9", "3")]
    assert captions[1].split == "validation"


def test_a_table_without_validation_lends_images_of_train(tmp_path: Path) -> None:
    content = [row(number, "train") for number in range(20)] + [row(number, "test") for number in range(20, 30)]
    reading = read("table", write_csv(tmp_path / "a.csv", content))
    splits = [c.split for c in reading.captions]
    held = splits.count("validation")
    assert 1 <= held < 10 and splits.count("train") == 20 - held and splits[20:] == ["test"] * 10
    assert "no validation split" in reading.notes[0] and f"{held} image" in reading.notes[0]


def test_two_columns_are_enough_and_files_name_captions_and_images(tmp_path: Path) -> None:
    content = [{"audio": f"{number}.wav", "image": f"{number // 3}.jpg"} for number in range(60)]
    reading = read("table", write_csv(tmp_path / "a.csv", content))
    first = reading.captions[0]
    assert (first.utterance_id, first.image_id, first.speech_path) == ("0.wav", "0.jpg", str(tmp_path / "0.wav"))
    assert reading.notes == ("no split column: 12 images to train, 4 images to validation, 4 images to test",)
    assert [c.split for c in reading.captions].count("test") == 12


def test_other_missing_splits_are_told(tmp_path: Path) -> None:
    reading = read("table", write_csv(tmp_path / "a.csv", rows()[:2]))
    assert [c.split for c in reading.captions] == ["train", "validation"]
    assert reading.notes == ("no test split",)


@pytest.mark.parametrize("suffix", WRITERS)
@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"speech_path": ""}, "is missing 'audio'; mend or remove it"),
        ({"image_path": ""}, "is missing 'image'; mend or remove it"),
        ({"split": ""}, "is missing 'split'; mend or remove it"),
        ({"split": "training"}, "has split 'training'; use one of train, validation, test, val, dev"),
        ({"utterance_id": "u0"}, ": utterance 'u0' is there twice; remove one"),
        ({"image_id": "i0", "image_path": "images/0.jpg"}, ": image 'i0' is in split validation here and in train"),
        ({"image_id": "i0", "split": "train"}, ": image 'i0' has another path than before; give it one path"),
    ],
)
def test_a_fault_names_file_and_line(tmp_path: Path, suffix: str, changes: dict[str, str], fault: str) -> None:
    content = rows()
    content[1].update(changes)
    table = WRITERS[suffix](tmp_path / f"captions{suffix}", content)
    refused("table", table, rf"{table}, line {3 if suffix == '.csv' else 2}:? ?{fault.removeprefix(': ')}")


@pytest.mark.parametrize(
    ("name", "content", "fault"),
    [
        ("a.csv", "image,split\np,train\n", r"a\.csv, line 1: no column audio; the first line must name audio, image"),
        ("a.csv", "", r"a\.csv, line 1: no column audio, image; the first line must name"),
        ("a.csv", "audio,image,speech_path\n", r"a\.csv, line 1: column audio is there twice; remove one"),
        ("a.csv", f"{HEADER},split\n", r"a\.csv, line 1: column split is there twice; remove one"),
        ("a.csv", f"{HEADER}\nu,i,s,p,train\nv,j,t,q\n", r"a\.csv, line 3 is missing 'split'"),
        ("a.csv", f"{HEADER}\nu,i,s,p\nv,j,t,q,train\n", r"a\.csv, line 3 has a split, rows before it have none"),
        ("a.csv", f"{HEADER}\nu,i,s,p,train,more\n", r"a\.csv, line 2 has 6 values for 5 columns; quote"),
        ("a.csv", f'{HEADER}\nu,i,s,p,"train\n', r"a\.csv, line 2: no row of CSV \(.*\); mend"),
        ("a.csv", f"{HEADER}\n", r"no caption of corpus 'table' there"),
        ("a.jsonl", "\n{}\n", r"a\.jsonl, line 2 is missing 'audio'; mend"),
        ("a.jsonl", "[]\n", r"a\.jsonl, line 1 is no record but a list; mend"),
        ("a.jsonl", '{"split": \n', r"a\.jsonl, line 1: no JSON \(.*\); write one object a line"),
        (
            "a.jsonl",
            '{"audio": "a", "image": "b", "split": true}\n',
            r"a\.jsonl, line 1 has a bool at 'split'; make it a text",
        ),
    ],
)
def test_a_broken_table_is_named(tmp_path: Path, name: str, content: str, fault: str) -> None:
    (tmp_path / name).write_text(content)
    refused("table", tmp_path, fault)


def test_a_table_in_another_encoding_is_named(tmp_path: Path) -> None:
    write_csv(tmp_path / "a.csv", rows(text="één"), encoding="latin-1")
    refused("table", tmp_path, r"a\.csv: not UTF-8 \(byte \d+\); save it as UTF-8")


def test_the_root_holds_exactly_one_table(tmp_path: Path) -> None:
    for root in (tmp_path, tmp_path / "absent"):
        refused("table", root, r"no \.csv or \.jsonl file there; .*--root")
    refused("table", touch(tmp_path / "notes.txt"), r"notes\.txt: neither a \.csv nor a \.jsonl file; .*--root")
    write_csv(tmp_path / "a.CSV", rows())
    (tmp_path / "._a.csv").write_bytes(b"\0")
    assert len(read("table", tmp_path).captions) == 3
    write_jsonl(tmp_path / "b.jsonl", rows())
    refused("table", tmp_path, r"several tables \(a\.CSV, b\.jsonl\); .*--root")


def test_an_unknown_corpus_lists_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"--corpus flickr: .* places205, flickr8k, spokencoco, .*table,"):
        read("flickr", tmp_path)


@pytest.mark.parametrize(
    "path",
    ["../elsewhere/a.wav", "link/a.wav", "file.wav", "x/../../elsewhere/a.h5::frames[3]", "{root}/elsewhere/a.wav"],
)
def test_a_path_that_leaves_the_folder_needs_leave(tmp_path: Path, path: str) -> None:
    """Relative, by a link to a folder or a file, inside an HDF5 file, absolute."""
    table, elsewhere = tmp_path / "table", tmp_path / "elsewhere"
    touch(elsewhere / "a.wav")
    table.mkdir()
    (table / "link").symlink_to(elsewhere)
    (table / "file.wav").symlink_to(elsewhere / "a.wav")
    first = {**row(0), "speech_path": path.format(root=tmp_path)}
    write_csv(table / "a.csv", [first, *rows()[1:]])
    refused("table", table / "a.csv", rf"'u0'.*outside; .*--allow {elsewhere}")
    assert read("table", table / "a.csv", [elsewhere]).captions, "what the user allows"
