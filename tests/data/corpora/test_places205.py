"""Places' readers, on files laid out as both releases lay them out."""

import json
from pathlib import Path

import pytest

from sia.data.corpora import read
from sia.errors import UserError


def record(number: int, **more: str) -> dict[str, str]:
    names = {"uttid": f"SPEAKER-{number}", "speaker": "SPEAKER", "asr_text": "a quiet abbey"}
    return {**names, "wav": f"wavs/{number}.wav", "image": f"a/abbey/{number}.jpg", **more}


def write(root: Path, name: str, numbers: range, **base: str) -> None:
    path = root / "metadata" / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({**base, "data": [record(number) for number in numbers]}))


def test_the_first_release_tests_on_val_and_holds_images_out_of_train(tmp_path: Path) -> None:
    write(tmp_path, "train", range(2000))
    write(tmp_path, "val", range(2000, 2100))
    captions = read("places205", tmp_path).captions
    splits = {split: [c for c in captions if c.split == split] for split in ("train", "validation", "test")}
    assert [c.utterance_id for c in splits["test"]] == [f"SPEAKER-{number}" for number in range(2000, 2100)]
    assert 50 <= len(splits["validation"]) <= 150, "five in a hundred images"
    assert len(captions) == 2100
    assert read("places205", tmp_path).captions == captions


def test_the_release_of_2020_brings_all_splits(tmp_path: Path) -> None:
    names = ("train", "dev_seen", "dev_unseen", "test_seen", "test_unseen")
    for place, name in enumerate(names):
        write(tmp_path, f"{name}_2020", range(10 * place, 10 * place + 10))
    captions = read("places205", tmp_path).captions
    assert [c.split for c in captions] == ["train"] * 10 + ["validation"] * 20 + ["test"] * 20


def test_a_record_becomes_a_caption(tmp_path: Path) -> None:
    write(tmp_path, "train", range(0))
    write(tmp_path, "val", range(1))
    (caption,) = read("places205", tmp_path).captions
    assert caption.image_id == "a/abbey/0.jpg"
    assert caption.speech_path == str(tmp_path / "wavs" / "0.wav")
    assert (caption.speaker, caption.language, caption.text) == ("SPEAKER", "en", "a quiet abbey")


def test_base_paths_count_where_they_are_there(tmp_path: Path) -> None:
    (tmp_path / "sounds").mkdir()
    write(tmp_path, "train", range(0))
    write(
        tmp_path, "val", range(1), audio_base_path=str(tmp_path / "sounds"), image_base_path="/data/of/another/machine"
    )
    (caption,) = read("places205", tmp_path).captions
    assert caption.speech_path == str(tmp_path / "sounds" / "wavs" / "0.wav")
    assert caption.image_path == str(tmp_path / "a" / "abbey" / "0.jpg")


def test_a_fault_names_file_and_record(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no train\.json, val\.json"):
        read("places205", tmp_path)
    write(tmp_path, "train", range(2))
    broken = tmp_path / "metadata" / "val.json"
    broken.write_text('{"data": [{"uttid": "x"}]}')
    with pytest.raises(UserError, match=r"val\.json: record 0"):
        read("places205", tmp_path)
    broken.write_text("{")
    with pytest.raises(UserError, match=r"val\.json: not Places"):
        read("places205", tmp_path)
