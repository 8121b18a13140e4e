"""Places' readers, on files laid out as its releases lay them out."""

import json
from pathlib import Path
from typing import Any

import pytest

from sia.data.corpora import read
from sia.data.corpora.places205 import aligned_words
from sia.errors import UserError


def record(number: int, **more: Any) -> dict[str, Any]:
    names = {"uttid": f"SPEAKER-{number}", "speaker": "SPEAKER", "asr_text": "a quiet abbey"}
    return {**names, "wav": f"wavs/{number}.wav", "image": f"a/abbey/{number}.jpg", **more}


def write(root: Path, name: str, numbers: range, **base: str) -> None:
    write_records(root, name, [record(number) for number in numbers], **base)


def write_records(root: Path, name: str, records: list[Any], **base: str) -> None:
    path = root / "metadata" / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({**base, "data": records}))


def touch(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return path


def test_the_first_release_tests_on_val_and_holds_images_out_of_train(tmp_path: Path) -> None:
    write(tmp_path, "train", range(2000))
    write(tmp_path, "val", range(2000, 2100))
    reading = read("places205", tmp_path)
    captions = reading.captions
    splits = {split: [c for c in captions if c.split == split] for split in ("train", "validation", "test")}
    assert [c.utterance_id for c in splits["test"]] == [f"SPEAKER-{number}" for number in range(2000, 2100)]
    assert 50 <= len(splits["validation"]) <= 150, "five in a hundred images"
    assert len(captions) == 2100
    assert read("places205", tmp_path).captions == captions
    number = len(splits["validation"])
    assert reading.notes == (f"val is the test split; {number} images held out of train are validation",)


def test_the_release_of_2020_brings_all_splits(tmp_path: Path) -> None:
    names = ("train", "dev_seen", "dev_unseen", "test_seen", "test_unseen")
    write(tmp_path, "train", range(100, 110))  # the first release beside it
    for place, name in enumerate(names):
        write(tmp_path, f"{name}_2020", range(10 * place, 10 * place + 10))
    reading = read("places205", tmp_path)
    assert [c.split for c in reading.captions] == ["train"] * 10 + ["validation"] * 20 + ["test"] * 20
    assert "dev_seen" in reading.notes[0]
    (tmp_path / "metadata" / "test_seen_2020.json").unlink()
    with pytest.raises(UserError, match=r"metadata: no test_seen_2020\.json; .*--root"):
        read("places205", tmp_path)


def test_a_record_becomes_a_caption(tmp_path: Path) -> None:
    write(tmp_path, "train", range(0))
    write(tmp_path, "val", range(1))
    (caption,) = read("places205", tmp_path).captions
    assert caption.image_id == "a/abbey/0.jpg"
    assert caption.speech_path == str(tmp_path / "wavs" / "0.wav")
    assert (caption.speaker, caption.language, caption.text) == ("SPEAKER", "en", "a quiet abbey")


def test_words_are_taken_off_the_alignment_where_there_is_no_transcript(tmp_path: Path) -> None:
    aligned = "0.1__A__0.3 0.3__QUIET__0.7 0.7__<SPOKEN_NOISE>__0.8 broken 0.8__ABBEY__1.2"
    bare = {key: value for key, value in record(2).items() if key not in ("asr_text", "speaker")}
    write(tmp_path, "train", range(0))
    records = [
        record(0, text_alignment=aligned),
        record(1, asr_text="", text_alignment=aligned),
        {**bare, "text_alignment": aligned},
        {**bare, "uttid": "u", "asr_text": None},
    ]
    write_records(tmp_path, "val", records)
    captions = read("places205", tmp_path).captions
    assert [c.text for c in captions] == ["a quiet abbey", "A QUIET ABBEY", "A QUIET ABBEY", ""]
    assert captions[2].speaker == ""
    assert aligned_words("") == ""


def test_base_paths_count_where_they_are_there(tmp_path: Path) -> None:
    (tmp_path / "sounds").mkdir()
    write(tmp_path, "train", range(0))
    write(
        tmp_path, "val", range(1), audio_base_path=str(tmp_path / "sounds"), image_base_path="/data/of/another/machine"
    )
    (caption,) = read("places205", tmp_path).captions
    assert caption.speech_path == str(tmp_path / "sounds" / "wavs" / "0.wav")
    assert caption.image_path == str(tmp_path / "a" / "abbey" / "0.jpg")


def test_a_relative_base_path_starts_at_the_root(tmp_path: Path) -> None:
    (tmp_path / "sounds").mkdir()
    write(tmp_path, "train", range(0))
    write(tmp_path, "val", range(1), audio_base_path="sounds", image_base_path="")
    (caption,) = read("places205", tmp_path).captions
    assert caption.speech_path == str(tmp_path / "sounds" / "wavs" / "0.wav")


@pytest.mark.parametrize("images", ["", "images256", "data/vision/torralba/deeplearning/images256"])
@pytest.mark.parametrize("given", [".", "..", "metadata"])
def test_the_root_is_the_corpus_its_parent_or_its_metadata(tmp_path: Path, given: str, images: str) -> None:
    corpus = tmp_path / "PlacesAudio_400k_distro"
    write(corpus, "train", range(0))
    write(corpus, "val", range(1))
    wav = touch(corpus / "wavs" / "0.wav")
    image = touch((corpus if given == "metadata" else corpus / given).resolve() / images / "a/abbey/0.jpg")
    (caption,) = read("places205", (corpus / given).resolve()).captions
    assert (Path(caption.speech_path), Path(caption.image_path)) == (wav, image)


def test_splits_of_2020_lie_beside_the_recordings_of_the_first_release(tmp_path: Path) -> None:
    for number, name in enumerate(("train", "dev_seen", "dev_unseen", "test_seen", "test_unseen")):
        write(tmp_path, f"{name}_2020", range(number, number + 1))
        touch(tmp_path / "PlacesAudio_400k_distro" / "wavs" / f"{number}.wav")
    (tmp_path / "metadata").rename(tmp_path / "placesaudio_2020_splits")
    captions = read("places205", tmp_path).captions
    assert len(captions) == 5 and all(Path(c.speech_path).is_file() for c in captions)


def test_a_wav_may_climb_over_a_folder_that_is_not_there(tmp_path: Path) -> None:
    write(tmp_path, "train", range(0))
    write_records(tmp_path, "val", [record(0, wav="wavs/../x.wav")])
    touch(tmp_path / "x.wav")
    (caption,) = read("places205", tmp_path).captions
    assert Path(caption.speech_path).read_bytes() == b""


def test_an_image_that_is_tested_on_is_not_trained_on(tmp_path: Path) -> None:
    write(tmp_path, "train", range(3))
    write_records(tmp_path, "val", [record(3), record(4, image=record(0)["image"])])
    reading = read("places205", tmp_path)
    assert [entry.utterance_id for entry in reading.dropped] == ["SPEAKER-0"]
    assert len(reading.captions) == 4


def test_a_fault_names_file_and_record(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no train\.json, val\.json"):
        read("places205", tmp_path)
    write(tmp_path, "train", range(2))
    with pytest.raises(UserError, match=r"metadata: no val\.json; .*--root"):
        read("places205", tmp_path)
    broken = tmp_path / "metadata" / "val.json"
    broken.write_text('{"data": [{"uttid": "x"}]}')
    with pytest.raises(UserError, match=r"val\.json: record 0"):
        read("places205", tmp_path)
    broken.write_text("{")
    with pytest.raises(UserError, match=r"val\.json: not Places"):
        read("places205", tmp_path)


@pytest.mark.parametrize(
    ("records", "fault"),
    [
        ([record(5), {**record(6), "uttid": None}], r"val\.json: record 1 of `data` is missing 'uttid'; mend"),
        ([record(5), "text"], r"val\.json: record 1 of `data` is no record but a str; mend"),
        ([record(5, wav=["a.wav"])], r"val\.json: record 0 of `data` has a list at 'wav'; make it a text"),
        ([record(5), record(6), record(5)], r"val\.json: record 2 of `data`: utterance 'SPEAKER-5' is there twice"),
        ([record(0)], r"val\.json: record 0 of `data`: utterance 'SPEAKER-0' is there twice"),
        ({"a": 1}, r"val\.json: not Places' metadata \(no list `data`\); fetch"),
        (None, r"val\.json: not Places' metadata \(no list `data`\); fetch"),
    ],
)
def test_a_broken_record_is_one_line(tmp_path: Path, records: Any, fault: str) -> None:
    write(tmp_path, "train", range(2))
    write_records(tmp_path, "val", records)
    with pytest.raises(UserError, match=fault) as caught:
        read("places205", tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"[]", b"3", b"\xff\xfe", b""])
def test_a_file_of_something_else_is_one_line(tmp_path: Path, content: bytes) -> None:
    write(tmp_path, "train", range(2))
    (tmp_path / "metadata" / "val.json").write_bytes(content)
    with pytest.raises(UserError, match=r"val\.json: not .*; (fetch|save)") as caught:
        read("places205", tmp_path)
    assert "\n" not in str(caught.value)


def write_lists(root: Path, numbers: range, held: range) -> None:
    """The older release, whose images begin with a slash."""
    lines = {
        "metadata/utt2wav": [f"S-{n} wavs/{n}/utterance_{n}.wav" for n in numbers],
        "metadata/utt2image": [f"S-{n} /a/abbey/{n}.jpg" for n in numbers],
        "metadata/utt2spk": [f"S-{n} S" for n in numbers],
        "metadata/utt2ASR": [f"S-{n} a quiet abbey" if n else f"S-{n}" for n in numbers],
        "lists/acl_2017_val_uttids": [f"S-{n}" for n in held],
    }
    for name, content in lines.items():
        touch(root / name).write_text("".join(f"{line}\n" for line in content))


def test_the_lists_of_the_older_release(tmp_path: Path) -> None:
    write_lists(tmp_path, range(60), range(50, 60))
    touch(tmp_path / "images256" / "a/abbey/0.jpg")
    reading = read("places205", tmp_path)
    splits = {c.utterance_id: c.split for c in reading.captions}
    assert [name for name, split in splits.items() if split == "test"] == [f"S-{n}" for n in range(50, 60)]
    assert 1 <= list(splits.values()).count("validation") <= 10
    first, second = reading.captions[:2]
    assert (first.image_id, first.speaker, first.text, second.text) == ("a/abbey/0.jpg", "S", "", "a quiet abbey")
    assert first.image_path == str(tmp_path / "images256/a/abbey/0.jpg")
    assert first.speech_path == str(tmp_path / "wavs/0/utterance_0.wav")
    assert "val is the test split" in reading.notes[0] and not reading.dropped


def test_both_forms_of_metadata_hold_out_the_same_images(tmp_path: Path) -> None:
    write(tmp_path / "json", "train", range(200))
    write(tmp_path / "json", "val", range(200, 210))
    write_lists(tmp_path / "lists", range(210), range(200, 210))
    by_image = [
        {c.image_id: c.split for c in read("places205", tmp_path / name).captions} for name in ("json", "lists")
    ]
    assert by_image[0] == by_image[1]


def test_the_val_list_may_bring_paths(tmp_path: Path) -> None:
    write_lists(tmp_path, range(6), range(0))
    (tmp_path / "lists" / "acl_2017_val_uttids").write_text("S-4 wavs/4/utterance_4.wav\n\nS-5 x.wav\r\n")
    splits = {c.utterance_id: c.split for c in read("places205", tmp_path).captions}
    assert [name for name, split in splits.items() if split == "test"] == ["S-4", "S-5"]


def test_an_utterance_of_one_list_alone_is_dropped(tmp_path: Path) -> None:
    write_lists(tmp_path, range(6), range(5, 8))
    with open(tmp_path / "metadata" / "utt2wav", "a") as stream:
        stream.write("S-20 wavs/20.wav\n")
    reading = read("places205", tmp_path)
    dropped = {entry.utterance_id: entry.reason for entry in reading.dropped}
    assert dropped == {"S-20": "no line in utt2image", "S-6": "no line in utt2wav", "S-7": "no line in utt2wav"}
    assert len(reading.captions) == 6


@pytest.mark.parametrize(
    ("name", "content", "fault"),
    [
        ("metadata/utt2wav", "S-0 a.wav\nS-1\n", r"utt2wav, line 2: 'S-1' has no second word; mend"),
        ("metadata/utt2wav", "S-0 a\n\nS-0 b\n", r"utt2wav, line 3: 'S-0' is there twice, with 'a' before; remove"),
        ("metadata/utt2image", None, r"metadata: no utt2image, .*; fetch it"),
        ("lists/acl_2017_val_uttids", None, r"no lists/acl_2017_val_uttids, .*; fetch it"),
    ],
)
def test_a_broken_list_names_its_line(tmp_path: Path, name: str, content: str | None, fault: str) -> None:
    write_lists(tmp_path, range(6), range(5, 6))
    if content is None:
        (tmp_path / name).unlink()
    else:
        (tmp_path / name).write_text(content)
    with pytest.raises(UserError, match=fault) as caught:
        read("places205", tmp_path)
    assert "\n" not in str(caught.value)


def test_a_base_path_that_is_another_folder_here_gives_way_to_where_the_files_are(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    write(tmp_path, "train", range(0))
    write(tmp_path, "val", range(1), audio_base_path=str(tmp_path / "other"), image_base_path=str(tmp_path / "other"))
    for name in ("wavs/0.wav", "a/abbey/0.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"0")
    (caption,) = read("places205", tmp_path).captions
    assert caption.speech_path == str(tmp_path / "wavs" / "0.wav")
    assert caption.image_path == str(tmp_path / "a" / "abbey" / "0.jpg")
