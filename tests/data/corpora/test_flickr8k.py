"""Flickr8k Audio's reader, on files laid out as the corpus and its mirrors lay them out."""

import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from PIL import Image

from sia.data.corpora import read
from sia.errors import UserError

IMAGES = [f"{number}_693b08cb0e.jpg" for number in range(1000, 1010)]
SPLITS = {"train": IMAGES[:6], "dev": IMAGES[6:8], "test": IMAGES[8:]}


def wavs_of(image: str) -> list[str]:
    return [f"{image.removesuffix('.jpg')}_{number}.wav" for number in range(5)]


def write_lines(path: Path, lines: list[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines))


def add_lines(path: Path, *lines: str) -> None:
    path.write_text(path.read_text() + "".join(f"{line}\n" for line in lines))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The corpus as its own archives unpack it; recordings and images are empty files."""
    root = tmp_path / "flickr8k"
    audio, texts = root / "flickr_audio", root / "Flickr8k_text"
    readings = [(image, number, wav) for image in IMAGES for number, wav in enumerate(wavs_of(image))]
    write_lines(audio / "wav2capt.txt", [f"{wav} {image} #{number}" for image, number, wav in readings])
    write_lines(audio / "wav2spk.txt", [f"{wav} {place % 7}" for place, (_, _, wav) in enumerate(readings)])
    write_lines(texts / "Flickr8k.token.txt", [f"{image}#{n}\tA dog , {n} ." for image, n, _ in readings])
    for split, images in SPLITS.items():
        write_lines(texts / f"Flickr_8k.{split}Images.txt", images)
    for folder, names in (("flickr_audio/wavs", [wav for *_, wav in readings]), ("Flicker8k_Dataset", IMAGES)):
        (root / folder).mkdir()
        for name in names:
            (root / folder / name).touch()
    return root


def write_karpathy(path: Path, **changes: Any) -> None:
    """Karpathy's dataset.json; `changes` go to its first record."""
    karpathy = {"train": "train", "dev": "val", "test": "test"}
    images = [
        {
            "filename": image,
            "split": karpathy[split],
            "imgid": number,
            "sentids": [5 * number + place for place in range(5)],
            "sentences": [{"raw": f"a dog {place}", "tokens": ["a", "dog"]} for place in range(5)],
        }
        for split, names in SPLITS.items()
        for number, image in enumerate(names)
    ]
    images[0].update(changes)
    path.write_text(json.dumps({"images": images, "dataset": "flickr8k"}))


def remove_lists(root: Path) -> None:
    for path in root.glob("Flickr8k_text/Flickr_8k.*"):
        path.unlink()


def test_a_line_of_wav2capt_becomes_a_caption(root: Path) -> None:
    reading = read("flickr8k", root)
    second = reading.captions[1]
    assert second.utterance_id == "1000_693b08cb0e_1" and second.image_id == "1000_693b08cb0e.jpg"
    assert second.speech_path == str(root / "flickr_audio/wavs/1000_693b08cb0e_1.wav")
    assert second.image_path == str(root / "Flicker8k_Dataset/1000_693b08cb0e.jpg")
    assert (second.split, second.speaker, second.language, second.text) == ("train", "1", "en", "A dog , 1 .")
    assert Counter(c.split for c in reading.captions) == {"train": 30, "validation": 10, "test": 10}
    assert not reading.dropped and not reading.notes


def test_karpathys_splits_stand_in_for_the_lists(root: Path) -> None:
    expected = read("flickr8k", root)
    remove_lists(root)
    write_karpathy(root / "dataset.json")
    assert read("flickr8k", root) == expected


def test_karpathys_sentences_stand_in_for_the_token_file(root: Path) -> None:
    (root / "Flickr8k_text/Flickr8k.token.txt").unlink()
    assert {c.text for c in read("flickr8k", root).captions} == {""}
    assert read("flickr8k", root).notes == ("no Flickr8k.token.txt or dataset.json: captions have no text",)
    write_karpathy(root / "dataset.json")
    reading = read("flickr8k", root)
    assert [c.text for c in reading.captions[:6]] == [f"a dog {place}" for place in (0, 1, 2, 3, 4, 0)]
    assert not reading.notes


@pytest.mark.parametrize("name", ["Flickr8k_Dataset", "Flickr8k_Dataset/Flicker8k_Dataset", "images", "Images"])
def test_mirrors_spell_the_images_folder_in_their_ways(root: Path, name: str) -> None:
    shutil.move(root / "Flicker8k_Dataset", root / "moved")
    (root / name).parent.mkdir(exist_ok=True)
    shutil.move(root / "moved", root / name)
    assert all(Path(c.image_path).is_file() for c in read("flickr8k", root).captions)


def test_text_files_may_lie_in_the_root(root: Path) -> None:
    expected = read("flickr8k", root)
    for path in [*root.glob("flickr_audio/*.txt"), *root.glob("Flickr8k_text/*.txt")]:
        shutil.move(path, root / path.name)
    assert read("flickr8k", root) == expected


def test_the_root_may_be_flickr_audio(root: Path) -> None:
    assert read("flickr8k", root / "flickr_audio") == read("flickr8k", root)


def test_speakers_may_be_missing(root: Path) -> None:
    (root / "flickr_audio/wav2spk.txt").unlink()
    reading = read("flickr8k", root)
    assert {c.speaker for c in reading.captions} == {""}
    assert reading.notes == ("no wav2spk.txt: speakers are unknown",)


def test_a_token_line_of_no_image_is_ignored(root: Path) -> None:
    expected = read("flickr8k", root)
    add_lines(root / "Flickr8k_text/Flickr8k.token.txt", "2258277193_586949ec62.jpg.1#0\tSome people .")
    assert read("flickr8k", root) == expected


def test_a_recording_without_split_or_file_is_dropped_with_its_reason(root: Path) -> None:
    add_lines(root / "flickr_audio/wav2capt.txt", "2258277193_586949ec62_0.wav 2258277193_586949ec62.jpg #0")
    gone = root / "flickr_audio/wavs" / wavs_of(IMAGES[0])[2]
    gone.unlink()
    reading = read("flickr8k", root)
    assert [(entry.utterance_id, entry.reason) for entry in reading.dropped] == [
        (gone.stem, "no such recording"),
        ("2258277193_586949ec62_0", "its image is in no split"),
    ]
    assert str(gone) in reading.dropped[0].detail
    assert len(reading.captions) == 49


def test_nothing_left_says_why(root: Path) -> None:
    for path in root.glob("flickr_audio/wavs/*.wav"):
        path.unlink()
    with pytest.raises(UserError, match=r"no caption .*50 left out: no such recording.*--root"):
        read("flickr8k", root)


def test_windows_line_ends_and_a_byte_order_mark_are_accepted(root: Path) -> None:
    expected = read("flickr8k", root)
    for path in root.rglob("*.txt"):
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    assert read("flickr8k", root) == expected


@pytest.mark.parametrize(
    ("name", "line", "fault"),
    [
        ("flickr_audio/wav2capt.txt", "x_0.wav x.jpg", r'wav2capt\.txt, line 51: .* is not like "x_0\.wav x\.jpg #0"'),
        ("flickr_audio/wav2capt.txt", f"{wavs_of(IMAGES[0])[0]} {IMAGES[0]} #0", r"wav2capt\.txt, line 51: .* twice"),
        ("flickr_audio/wav2spk.txt", "x_0.wav", r"wav2spk\.txt, line 51: 'x_0\.wav' has no second word"),
        ("Flickr8k_text/Flickr8k.token.txt", "x.jpg#0 A dog .", r"token\.txt, line 51: .* is not like"),
        ("Flickr8k_text/Flickr_8k.testImages.txt", IMAGES[0], r"testImages\.txt, line 3: .* list of train too; remove"),
    ],
)
def test_a_broken_line_is_named(root: Path, name: str, line: str, fault: str) -> None:
    add_lines(root / name, line)
    with pytest.raises(UserError, match=fault) as caught:
        read("flickr8k", root)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"split": "restval"}, r"dataset\.json: record 0 of `images` has split 'restval'; use one of train, val"),
        ({"split": None}, r"dataset\.json: record 0 of `images` is missing 'split'; mend"),
        ({"filename": IMAGES[9]}, r"dataset\.json: record 9 of `images`: .* is in another split before; remove one"),
        ({"sentences": "text"}, r"dataset\.json: record 0 of `images` has no list 'sentences'; mend"),
    ],
)
def test_a_broken_record_of_karpathys_is_named(root: Path, changes: dict[str, Any], fault: str) -> None:
    remove_lists(root)
    write_karpathy(root / "dataset.json", **changes)
    with pytest.raises(UserError, match=fault):
        read("flickr8k", root)


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("flickr_audio/wav2capt.txt", r"no wav2capt\.txt; .*--root"),
        ("flickr_audio/wavs", r"no folder wavs; .*--root"),
        ("Flicker8k_Dataset", r"no folder Flicker8k_Dataset; .*--root"),
        ("Flickr8k_text/Flickr_8k.devImages.txt", r"no Flickr_8k\.devImages\.txt, and no dataset\.json .*--root"),
    ],
)
def test_what_is_missing_is_named(root: Path, name: str, fault: str) -> None:
    shutil.move(root / name, root.parent / "elsewhere")
    with pytest.raises(UserError, match=fault) as caught:
        read("flickr8k", root)
    assert "\n" not in str(caught.value)


def test_the_recording_with_a_bad_header_is_dropped_when_it_is_prepared(root: Path, tmp_path: Path) -> None:
    from sia.data.prepare import finish, plan, write_shard

    rng = np.random.default_rng(0)
    for image in IMAGES:
        Image.fromarray(rng.integers(0, 255, (40, 40, 3), dtype=np.uint8)).save(root / "Flicker8k_Dataset" / image)
    for path in root.glob("flickr_audio/wavs/*.wav"):
        soundfile.write(path, rng.normal(0, 0.1, 3200), 16_000)
    bad = root / "flickr_audio/wavs" / wavs_of(IMAGES[1])[3]
    bad.write_bytes(b"\0" * 44 + bad.read_bytes()[44:])
    (root / "flickr_audio/wavs" / wavs_of(IMAGES[2])[0]).unlink()
    plan("flickr8k", root, tmp_path / "out", 1, 32)
    write_shard(tmp_path / "out", 0)
    description = finish(tmp_path / "out")
    assert description["num_captions"] == {"train": 28, "validation": 10, "test": 10}
    assert description["dropped"] == {"no such recording": 1, "unreadable speech": 1}
    listed = (tmp_path / "out" / "dropped.jsonl").read_text()
    assert bad.stem in listed and str(bad) in listed


def test_a_speaker_who_is_told_twice_alike_is_no_fault(root: Path) -> None:
    """As in the file of the corpus; told otherwise the second time, the line is named."""
    speakers = root / "flickr_audio/wav2spk.txt"
    lines = speakers.read_text().splitlines()
    write_lines(speakers, [*lines, lines[3]])
    assert len(read("flickr8k", root).captions) > 0
    write_lines(speakers, [*lines, f"{lines[3].split()[0]} somebody"])
    with pytest.raises(UserError, match=rf"wav2spk\.txt, line {len(lines) + 1}: .* is there twice"):
        read("flickr8k", root)
