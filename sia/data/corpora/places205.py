"""Places audio captions, the paper's corpus (section 3): metadata beside recordings and Places 205's images.

Three releases are read. The first has train.json and val.json, an older one has lists of lines (utt2wav, utt2image,
acl_2017_val_uttids): val is the test split of both, and seeded images are held out of train for validation. That of
2020 has dev_* for validation and test_* for testing.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

from sia.data.corpora.held_out import hold_out, without_shared_images
from sia.data.corpora.records import (
    Record,
    collect,
    first_file,
    folder_holding,
    located,
    named_folder,
    read_json_records,
    read_lines,
    read_pairs,
)
from sia.data.manifest import Dropped, Reading, SpokenCaption
from sia.errors import UserError

CURE = "give the folder that holds metadata/train.json and val.json, or the *_2020.json files, with --root"
SPLIT_OF_2020 = {
    "train_2020": "train",
    **{"dev_seen_2020": "validation", "dev_unseen_2020": "validation"},
    **{"test_seen_2020": "test", "test_unseen_2020": "test"},
}
SPLIT_OF_FIRST = {"train": "train", "val": "test"}

# The folders that the releases are packed in, and those that Places 205's images are packed in.
PACKED = ("", "placesaudio_2020_splits", "PlacesAudio_400k_distro", "placesaudio_distro_part_1")
PACKED_IMAGES = ("", "images256", "images", "data/vision/torralba/deeplearning/images256")
TRANSCRIPTS = ("utt2ASR", "utt2asr", "utt2text")

Placed = tuple[str, SpokenCaption]


def read(root: Path) -> Reading:
    """The captions of a release under `root`: that of 2020, else the first, else the lists.

    Raises UserError that names the file, and the record, at fault.
    """
    folders = [root / packed / inner for packed in PACKED for inner in ("metadata", "")]
    if found := first_file(["train_2020.json"], folders):
        note = "dev_seen and dev_unseen are validation, test_seen and test_unseen are the test split"
        return Reading(*without_shared_images(_read_release(root, found.parent, SPLIT_OF_2020)), notes=(note,))
    if found := first_file(["train.json", "val.json"], folders):
        return _validated(_read_release(root, found.parent, SPLIT_OF_FIRST), [])
    if found := first_file(["utt2wav"], folders):
        return _validated(*_read_lists(root, found.parent))
    raise UserError(f"{root}: no train.json, val.json, train_2020.json or utt2wav there; {CURE}")


def _validated(captions: list[SpokenCaption], dropped: list[Dropped]) -> Reading:
    captions, shared = without_shared_images(captions)
    captions, told = hold_out(captions)
    return Reading(captions, dropped + shared, notes=(f"val is the test split; {told}",))


def _read_release(root: Path, folder: Path, splits: dict[str, str]) -> list[SpokenCaption]:
    missing = [f"{name}.json" for name in splits if not (folder / f"{name}.json").is_file()]
    if missing:
        raise UserError(f"{folder}: no {', '.join(missing)}; {CURE}")
    return collect(
        placed for name, split in splits.items() for placed in _read_file(root, folder / f"{name}.json", split)
    )


def _read_file(root: Path, path: Path, split: str) -> Iterator[Placed]:
    content, records = read_json_records(path, "data", "Places'")
    wavs, shown = [record.text("wav") for record in records], [record.text("image") for record in records]
    speech = _speech_folder(root, path.parent, wavs, named_folder(content, "audio_base_path", root))
    images = _image_folder(root, path.parent, shown, named_folder(content, "image_base_path", root))
    for record in records:
        yield record.place, _caption(record, speech, images, split)


def _caption(record: Record, speech: Path, images: Path, split: str) -> SpokenCaption:
    return SpokenCaption(
        utterance_id=record.text("uttid"),
        image_id=record.text("image"),
        speech_path=located(speech, record.text("wav")),
        image_path=located(images, record.text("image")),
        split=split,
        speaker=record.optional("speaker"),
        language="en",
        text=record.optional("asr_text") or aligned_words(record.optional("text_alignment")),
    )


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
    return _listed_captions(root, folder, wavs, images, held), dropped


def _listed_captions(
    root: Path, folder: Path, wavs: dict[str, str], images: dict[str, str], held: set[str]
) -> list[SpokenCaption]:
    speakers, texts = _optional_pairs(folder, ["utt2spk"]), _optional_pairs(folder, TRANSCRIPTS)
    # utt2image's names begin with a slash, though they are relative to the images' folder.
    images = {name: image.lstrip("/") for name, image in images.items()}
    speech = _speech_folder(root, folder, list(wavs.values()))
    pictures = _image_folder(root, folder, list(images.values()))
    return [
        SpokenCaption(
            utterance_id=name,
            image_id=images[name],
            speech_path=located(speech, wav),
            image_path=located(pictures, images[name]),
            split="test" if name in held else "train",
            speaker=speakers.get(name, ""),
            language="en",
            text=texts.get(name, ""),
        )
        for name, wav in wavs.items()
        if name in images
    ]


def _optional_pairs(folder: Path, names: Sequence[str]) -> dict[str, str]:
    """What one of the lists tells of utterances; a transcript may be empty, so a lone key is no fault."""
    path = first_file(names, [folder])
    if path is None:
        return {}
    return {key: " ".join(words) for key, *words in (line.split() for _, line in read_lines(path))}


def _speech_folder(root: Path, metadata: Path, names: list[str], named: Sequence[Path] = ()) -> Path:
    return folder_holding(names, [*named, *_corpus_folders(root, metadata)])


def _image_folder(root: Path, metadata: Path, names: list[str], named: Sequence[Path] = ()) -> Path:
    folders = _corpus_folders(root, metadata)
    return folder_holding(names, [*named, *(folder / packed for folder in folders for packed in PACKED_IMAGES)])


def _corpus_folders(root: Path, metadata: Path) -> list[Path]:
    """Where wavs/ may lie: beside the metadata first, for a root that is their folder."""
    own = metadata.parent if metadata.name == "metadata" else metadata
    return list(dict.fromkeys([own, *(root / packed for packed in PACKED)]))
