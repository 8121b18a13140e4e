"""Places audio captions, the paper's corpus (section 3): metadata beside recordings and Places 205's images.

Three releases are read. The first has train.json and val.json, an older one has lists of lines (utt2wav, utt2image,
acl_2017_val_uttids): val is the test split of both, and seeded images are held out of train for validation. That of
2020 has dev_* for validation and test_* for testing.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sia.data.corpora.held_out import tested_on_val, without_shared_images
from sia.data.corpora.metadata import (
    Record,
    collect,
    first_file,
    read_json_records,
    read_lines,
    read_pairs,
    spoken_captions,
)
from sia.data.manifest import Dropped, Reading, SpokenCaption
from sia.errors import UserError

CURE = "give the folder that holds metadata/train.json and val.json, or the *_2020.json files, with --root"
SPLIT_OF_2020 = {
    "train_2020.json": "train",
    **{"dev_seen_2020.json": "validation", "dev_unseen_2020.json": "validation"},
    **{"test_seen_2020.json": "test", "test_unseen_2020.json": "test"},
}
SPLIT_OF_FIRST = {"train.json": "train", "val.json": "test"}

# The folders that the releases are packed in, and those that Places 205's images are packed in.
PACKED = ("", "placesaudio_2020_splits", "PlacesAudio_400k_distro", "placesaudio_distro_part_1")
PACKED_IMAGES = ("", "images256", "images", "data/vision/torralba/deeplearning/images256")
TRANSCRIPTS = ("utt2ASR", "utt2asr", "utt2text")


def read(root: Path) -> Reading:
    """The captions of a release under `root`: that of 2020, else the first, else the lists.

    Raises UserError that names the file, and the record, at fault.
    """
    folders = [root / packed / inner for packed in PACKED for inner in ("metadata", "")]
    if found := first_file(["train_2020.json"], folders):
        note = "dev_seen and dev_unseen are validation, test_seen and test_unseen are the test split"
        return Reading(*without_shared_images(_read_release(root, found.parent, SPLIT_OF_2020)), notes=(note,))
    if found := first_file(SPLIT_OF_FIRST, folders):
        return tested_on_val(_read_release(root, found.parent, SPLIT_OF_FIRST), [])
    if found := first_file(["utt2wav"], folders):
        return tested_on_val(*_read_lists(root, found.parent))
    raise UserError(f"{root}: no train.json, val.json, train_2020.json or utt2wav there; {CURE}")


def _read_release(root: Path, folder: Path, split_of: dict[str, str]) -> list[SpokenCaption]:
    missing = [name for name in split_of if not (folder / name).is_file()]
    if missing:
        raise UserError(f"{folder}: no {', '.join(missing)}; {CURE}")
    return collect(placed for name, split in split_of.items() for placed in _read_file(root, folder / name, split))


def _read_file(root: Path, path: Path, split: str) -> Iterator[tuple[str, SpokenCaption]]:
    content, records = read_json_records(path, "data", "Places'")
    records = [
        Record(record.place, {**record.values, "split": split, "text": _transcript(record)}) for record in records
    ]
    return _captions(root, path.parent, content, records)


def _transcript(record: Record) -> str:
    return record.optional("asr_text") or aligned_words(record.optional("text_alignment"))


def aligned_words(alignment: str) -> str:
    """The words of "0.1__a__0.3 0.3__quiet__0.7": start and end in seconds around each. Other parts are left out."""
    parts = [part.split("__") for part in alignment.split()]
    return " ".join(part[1] for part in parts if len(part) == 3 and not part[1].startswith("<"))


def _read_lists(root: Path, folder: Path) -> tuple[list[SpokenCaption], list[Dropped]]:
    """The older release: a line an utterance in metadata/utt2*, and the list of those of val."""
    listed = first_file(["acl_2017_val_uttids"], [folder.parent / "lists", folder / "lists", folder])
    if listed is None:
        raise UserError(f"{folder.parent}: no lists/acl_2017_val_uttids, which names the test split; fetch it")
    if not (folder / "utt2image").is_file():
        raise UserError(f"{folder}: no utt2image, which names the image of each utterance; fetch it")
    wavs, images = read_pairs(folder / "utt2wav"), read_pairs(folder / "utt2image")
    held = {line.split()[0] for _, line in read_lines(listed)}
    dropped = [Dropped(name, "no line in utt2image") for name in wavs if name not in images]
    dropped += [Dropped(name, "no line in utt2wav") for name in dict.fromkeys([*images, *held]) if name not in wavs]
    speakers, texts = _optional_pairs(folder, "utt2spk"), _optional_pairs(folder, *TRANSCRIPTS)
    records = [
        Record(
            f"{folder}: utterance {name}",
            {
                "uttid": name,
                "wav": wav,
                "image": images[name].lstrip("/"),  # relative to the images' folder all the same
                "split": "test" if name in held else "train",
                "speaker": speakers.get(name),
                "text": texts.get(name),
            },
        )
        for name, wav in wavs.items()
        if name in images
    ]
    return collect(_captions(root, folder, {}, records)), dropped


def _optional_pairs(folder: Path, *names: str) -> dict[str, str]:
    """What one of the lists tells of utterances; a transcript may be empty, so a lone key is no fault."""
    path = first_file(names, [folder])
    lines = [line.split() for _, line in read_lines(path)] if path else []
    return {key: " ".join(words) for key, *words in lines}


def _captions(
    root: Path, metadata: Path, content: dict[str, Any], records: list[Record]
) -> Iterator[tuple[str, SpokenCaption]]:
    # wavs/ may lie beside the metadata first, for a root that is their folder.
    own = metadata.parent if metadata.name == "metadata" else metadata
    folders = list(dict.fromkeys([own, *(root / packed for packed in PACKED)]))
    images = [folder / packed for folder in folders for packed in PACKED_IMAGES]
    return spoken_captions(root, content, records, folders, images)
