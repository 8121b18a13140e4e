"""Flickr8k Audio's reader, on files laid out as the corpus and its mirrors lay them out."""

import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from corpus_files import dropped, refused, touch, write_json, write_lines

from sia.data.corpora import read
from sia.data.manifest import Reading

IMAGES = [f"{number}_693b08cb0e.jpg" for number in range(1000, 1010)]
SPLITS = {"train": IMAGES[:6], "dev": IMAGES[6:8], "test": IMAGES[8:]}
READINGS = [(image, number, f"{image.removesuffix('.jpg')}_{number}.wav") for image in IMAGES for number in range(5)]


def flickr8k(root: Path) -> Reading:
    return read("flickr8k", root)


def add_line(path: Path, line: str) -> None:
    path.write_text(f"{path.read_text()}{line}\n")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The corpus as its own archives unpack it; recordings and images are empty files."""
    root = tmp_path / "flickr8k"
    audio, texts = root / "flickr_audio", root / "Flickr8k_text"
    write_lines(audio / "wav2capt.txt", [f"{wav} {image} #{number}" for image, number, wav in READINGS])
    write_lines(audio / "wav2spk.txt", [f"{wav} {place % 7}" for place, (_, _, wav) in enumerate(READINGS)])
    write_lines(texts / "Flickr8k.token.txt", [f"{image}#{n}\tA dog , {n} ." for image, n, _ in READINGS])
    for split, images in SPLITS.items():
        write_lines(texts / f"Flickr_8k.{split}Images.txt", images)
    for _, _, wav in READINGS:
        touch(audio / "wavs" / wav)
    for image in IMAGES:
        touch(root / "Flicker8k_Dataset" / image)
    return root


def write_karpathy(root: Path, **changes: Any) -> None:
    """Karpathy's dataset.json in place of the lists; `changes` go to its first record."""
    karpathy = {"train": "train", "dev": "val", "test": "test"}
    images = [
        {"filename": image, "split": karpathy[split], "sentences": [{"raw": f"a dog {place}"} for place in range(5)]}
        for split, names in SPLITS.items()
        for image in names
    ]
    images[0].update(changes)
    write_json(root / "dataset.json", {"images": images, "dataset": "flickr8k"})
    for path in root.glob("Flickr8k_text/Flickr_8k.*"):
        path.unlink()


def test_a_line_of_wav2capt_becomes_a_caption(root: Path) -> None:
    reading = flickr8k(root)
    second = reading.captions[1]
    assert second.utterance_id == "1000_693b08cb0e_1" and second.image_id == "1000_693b08cb0e.jpg"
    assert second.speech_path == str(root / "flickr_audio/wavs/1000_693b08cb0e_1.wav")
    assert second.image_path == str(root / "Flicker8k_Dataset/1000_693b08cb0e.jpg")
    assert (second.split, second.speaker, second.language, second.text) == ("train", "1", "en", "A dog , 1 .")
    assert Counter(c.split for c in reading.captions) == {"train": 30, "validation": 10, "test": 10}
    assert not reading.dropped and not reading.notes


def test_other_layouts_are_the_same_corpus(root: Path) -> None:
    expected = flickr8k(root)
    assert flickr8k(root / "flickr_audio") == expected
    add_line(root / "Flickr8k_text/Flickr8k.token.txt", "2258277193_586949ec62.jpg.1#0\tSome people .")
    assert flickr8k(root) == expected, "a token line of no image"
    for path in root.rglob("*.txt"):
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    assert flickr8k(root) == expected, "as Windows writes text"
    for path in [*root.glob("flickr_audio/*.txt"), *root.glob("Flickr8k_text/*.txt")]:
        shutil.move(path, root / path.name)
    assert flickr8k(root) == expected, "text files in the root"


def test_karpathys_file_stands_in_for_the_lists_and_the_token_file(root: Path) -> None:
    expected = flickr8k(root)
    tokens = root / "Flickr8k_text/Flickr8k.token.txt"
    hidden = tokens.rename(root / "hidden")
    reading = flickr8k(root)
    assert {c.text for c in reading.captions} == {""}
    assert reading.notes == ("no Flickr8k.token.txt or dataset.json: captions have no text",)
    write_karpathy(root)
    reading = flickr8k(root)
    assert [c.text for c in reading.captions[:6]] == [f"a dog {place}" for place in (0, 1, 2, 3, 4, 0)]
    hidden.rename(tokens)
    assert flickr8k(root) == expected and not reading.notes


@pytest.mark.parametrize("name", ["Flickr8k_Dataset/Flicker8k_Dataset", "Flickr8k_Dataset", "images", "Images"])
def test_mirrors_spell_the_images_folder_in_their_ways(root: Path, name: str) -> None:
    (root / name).parent.mkdir(exist_ok=True)
    shutil.move(root / "Flicker8k_Dataset", root / name)
    assert all(Path(c.image_path).is_file() for c in flickr8k(root).captions)


def test_speakers_may_be_missing_or_told_twice_alike(root: Path) -> None:
    speakers = root / "flickr_audio/wav2spk.txt"
    again = speakers.read_text().splitlines()[3]
    add_line(speakers, again)  # as in the file of the corpus
    assert len(flickr8k(root).captions) == 50
    add_line(speakers, f"{again.split()[0]} somebody")
    refused("flickr8k", root, r"wav2spk\.txt, line 52: .* is there twice")
    speakers.unlink()
    reading = flickr8k(root)
    assert {c.speaker for c in reading.captions} == {""}
    assert reading.notes == ("no wav2spk.txt: speakers are unknown",)


def test_a_recording_without_split_or_file_is_dropped_with_its_reason(root: Path) -> None:
    add_line(root / "flickr_audio/wav2capt.txt", "2258277193_586949ec62_0.wav 2258277193_586949ec62.jpg #0")
    gone = root / "flickr_audio/wavs" / READINGS[2][2]
    gone.unlink()
    reading = flickr8k(root)
    assert dropped(reading) == {
        gone.stem: "no such recording",
        "2258277193_586949ec62_0": "its image is in no split",
    }
    assert str(gone) in reading.dropped[0].detail and len(reading.captions) == 49
    for path in root.glob("flickr_audio/wavs/*.wav"):
        path.unlink()
    refused("flickr8k", root, r"no caption .*51 left out: no such recording.*--root")


@pytest.mark.parametrize(
    ("name", "line", "fault"),
    [
        ("flickr_audio/wav2capt.txt", "x_0.wav x.jpg", r'wav2capt\.txt, line 51: .* is not like "x_0\.wav x\.jpg #0"'),
        ("flickr_audio/wav2capt.txt", f"{READINGS[0][2]} {IMAGES[0]} #0", r"wav2capt\.txt, line 51: .* twice"),
        ("flickr_audio/wav2spk.txt", "x_0.wav", r"wav2spk\.txt, line 51: 'x_0\.wav' has no second word"),
        ("Flickr8k_text/Flickr8k.token.txt", "x.jpg#0 A dog .", r"token\.txt, line 51: .* is not like"),
        ("Flickr8k_text/Flickr_8k.testImages.txt", IMAGES[0], r"testImages\.txt, line 3: .* list of train too; remove"),
    ],
)
def test_a_broken_line_is_named(root: Path, name: str, line: str, fault: str) -> None:
    add_line(root / name, line)
    refused("flickr8k", root, fault)


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"split": "restval"}, r"dataset\.json: record 0 of `images` has split 'restval'; use one of train, val"),
        ({"filename": IMAGES[9]}, r"dataset\.json: record 9 of `images`: .* is in another split before; remove one"),
    ],
)
def test_a_broken_record_of_karpathys_is_named(root: Path, changes: dict[str, Any], fault: str) -> None:
    write_karpathy(root, **changes)
    refused("flickr8k", root, fault)


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
    refused("flickr8k", root, fault)
