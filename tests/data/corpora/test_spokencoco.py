"""SpokenCOCO's reader, on files laid out as the corpus lays them out."""

from pathlib import Path
from typing import Any

import pytest
from corpus_files import refused, touch, write_json

from sia.data.corpora import read
from sia.data.manifest import SpokenCaption


def name_of(split: str, number: int) -> str:
    return f"{split}2014/COCO_{split}2014_{number:012d}.jpg"


def caption(split: str, image: int, number: int) -> dict[str, Any]:
    uttid = f"m{number}-3LUY3GC63Z0R9P_{image}_{number}"
    text = "A URINAL IN A PUBLIC RESTROOM"
    wav = f"wavs/{split}/0/{uttid}.wav"
    return {"text": text, "speaker": f"m{number}", "uttid": uttid, "wav": wav, "parse_tree": "( a urinal )"}


def image(split: str, number: int, captions: int = 2) -> dict[str, Any]:
    spoken = [caption(split, number, place) for place in range(captions)]
    return {"image": name_of(split, number), "captions": spoken}


def write(folder: Path, train: Any, val: Any) -> None:
    write_json(folder / "SpokenCOCO_train.json", {"data": train})
    write_json(folder / "SpokenCOCO_val.json", {"data": val})


TRAIN = [image("train", number) for number in range(40)]
VAL = [image("val", number) for number in range(100, 103)]


def test_val_is_tested_on_and_images_are_held_out_of_train(tmp_path: Path) -> None:
    write(tmp_path, TRAIN, VAL)
    reading = read("spokencoco", tmp_path)
    splits: dict[str, set[str]] = {}
    for found in reading.captions:
        splits.setdefault(found.image_id, set()).add(found.split)
    assert len(reading.captions) == 86 and all(len(split) == 1 for split in splits.values())
    assert {name for name, split in splits.items() if split == {"test"}} == {name_of("val", n) for n in (100, 101, 102)}
    held = sum(split == {"validation"} for split in splits.values())
    assert held >= 1 and f"{held} image" in reading.notes[0] and "val is the test split" in reading.notes[0]


def test_a_record_becomes_captions_whose_speaker_and_text_may_be_missing(tmp_path: Path) -> None:
    bare_record = {"image": "a.jpg", "captions": [{"uttid": 12, "wav": "a.wav"}]}
    write(tmp_path, [], [image("val", 7, captions=1), bare_record])
    found, bare = read("spokencoco", tmp_path).captions
    uttid, shown = "m0-3LUY3GC63Z0R9P_7_0", name_of("val", 7)
    files = (str(tmp_path / f"wavs/val/0/{uttid}.wav"), str(tmp_path / shown))
    assert found == SpokenCaption(uttid, shown, *files, "test", "m0", "en", "A URINAL IN A PUBLIC RESTROOM")
    assert (bare.utterance_id, bare.speaker, bare.text) == ("12", "", "")


@pytest.mark.parametrize("images", ["", "images", "SpokenCOCO", "coco"])
@pytest.mark.parametrize("given", ["", "SpokenCOCO"])
def test_coco_lies_in_the_root_or_beside_the_corpus(tmp_path: Path, images: str, given: str) -> None:
    write(tmp_path / "SpokenCOCO", TRAIN, VAL)
    picture = touch(tmp_path / images / name_of("val", 101))
    sound = touch(tmp_path / "SpokenCOCO" / "wavs/val/0/m0-3LUY3GC63Z0R9P_101_0.wav")
    captions = {c.utterance_id: c for c in read("spokencoco", tmp_path / given).captions}
    found = captions["m0-3LUY3GC63Z0R9P_101_0"]
    assert (Path(found.image_path), Path(found.speech_path)) == (picture, sound)


@pytest.mark.parametrize(
    ("data", "fault"),
    [
        ([image("val", 1), {"captions": []}], r"_val\.json: record 1 of `data` is missing 'image'; mend"),
        ([{"image": "a.jpg", "captions": {}}], r"_val\.json: record 0 of `data` has no list 'captions'; mend"),
        ([{"image": "a.jpg", "captions": [{"wav": "a.wav"}]}], r"record 0 of `data`, captions 0 is missing 'uttid'"),
        ([image("val", 101), image("val", 101)], r"record 1 of `data`, captions 0: utterance 'm0.*' is there twice"),
    ],
)
def test_a_fault_names_file_and_record(tmp_path: Path, data: Any, fault: str) -> None:
    write(tmp_path, TRAIN, data)
    refused("spokencoco", tmp_path, fault)


def test_a_missing_or_empty_file_is_named(tmp_path: Path) -> None:
    refused("spokencoco", tmp_path, r"no SpokenCOCO_train\.json, SpokenCOCO_val\.json; .*--root")
    write(tmp_path, [], [])
    refused("spokencoco", tmp_path, r"no caption of corpus 'spokencoco' there; .*--root")
    (tmp_path / "SpokenCOCO_val.json").unlink()
    refused("spokencoco", tmp_path, r"no SpokenCOCO_val\.json; .*--root")
