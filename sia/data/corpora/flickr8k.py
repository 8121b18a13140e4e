"""Flickr8k Audio: 40,000 readings of Flickr8k's captions (Harwath and Glass, ASRU 2015).

flickr_audio/ holds wavs/, wav2capt.txt ("x_0.wav x.jpg #0") and wav2spk.txt ("x_0.wav 3"). The splits are
Flickr_8k.trainImages.txt, devImages and testImages, or those of Karpathy's dataset.json; dev is validation.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from sia.data.corpora.records import collect, first_file, read_json_records, read_lines, read_pairs
from sia.data.manifest import Dropped, Reading, SpokenCaption
from sia.errors import UserError

CURE = "give the folder that holds flickr_audio/, the images and the split lists with --root"
SPLIT_OF_LIST = {
    "Flickr_8k.trainImages.txt": "train",
    "Flickr_8k.devImages.txt": "validation",
    "Flickr_8k.testImages.txt": "test",
}
KARPATHY = ("dataset.json", "dataset_flickr8k.json")
SPLIT_OF_KARPATHY = {"train": "train", "val": "validation", "dev": "validation", "test": "test"}

FOLDERS = ("", "flickr_audio", "Flickr8k_text", "flickr_audio/flickr_audio", "Flickr8k", "flickr8k")
# The first is the corpus's own, misspelt; some mirrors mend it, or pack one in the other.
IMAGE_FOLDERS = (
    *("Flicker8k_Dataset", "Flickr8k_Dataset/Flicker8k_Dataset", "Flickr8k_Dataset", "images", "Images"),
    *("Flicker8k_Images", "Flickr8k_images"),
)


class Metadata(NamedTuple):
    """What the text files tell: the split of each image, the text of each (image, caption number), and speakers."""

    split_of: dict[str, str]
    texts: dict[tuple[str, str], str]
    speaker_of: dict[str, str]
    notes: tuple[str, ...]


class Folders(NamedTuple):
    wavs: Path
    images: Path


def read(root: Path) -> Reading:
    """The captions under `root`, the corpus's folder or its flickr_audio.

    A recording that is missing, or whose image is in no split, is dropped. Raises UserError that names the file, and
    the line, at fault.
    """
    places = _places(root)
    listed = first_file(["wav2capt.txt"], places)
    if listed is None:
        raise UserError(f"{root}: no wav2capt.txt; {CURE}")
    folders = Folders(_folder(["wavs"], root, places), _folder(IMAGE_FOLDERS, root, places))
    metadata = _read_metadata(root, places)
    dropped: list[Dropped] = []
    captions = collect(_captions(listed, folders, metadata, dropped))
    return Reading(captions, dropped, notes=metadata.notes)


def _captions(
    listed: Path, folders: Folders, metadata: Metadata, dropped: list[Dropped]
) -> Iterator[tuple[str, SpokenCaption]]:
    """The captions of wav2capt.txt, each after its line; those left out are added to `dropped`."""
    present = {path.name for path in folders.wavs.iterdir()}
    for place, wav, image, number in _read_wav2capt(listed):
        if image not in metadata.split_of:
            dropped.append(Dropped(Path(wav).stem, "its image is in no split", image))
        elif wav not in present:
            dropped.append(Dropped(Path(wav).stem, "no such recording", str(folders.wavs / wav)))
        else:
            yield place, _caption(wav, image, number, folders, metadata)


def _caption(wav: str, image: str, number: str, folders: Folders, metadata: Metadata) -> SpokenCaption:
    return SpokenCaption(
        utterance_id=Path(wav).stem,
        image_id=image,
        speech_path=str(folders.wavs / wav),
        image_path=str(folders.images / image),
        split=metadata.split_of[image],
        speaker=metadata.speaker_of.get(wav, ""),
        language="en",
        text=metadata.texts.get((image, number), ""),
    )


def _read_wav2capt(path: Path) -> Iterator[tuple[str, str, str, str]]:
    """Place, wav, image and caption number of each line."""
    for place, line in read_lines(path):
        words = line.split()
        if len(words) != 3 or not words[2].startswith("#"):
            raise UserError(f'{place}: {line!r} is not like "x_0.wav x.jpg #0"; mend or remove it')
        yield place, words[0], words[1], words[2][1:]


def _read_metadata(root: Path, places: list[Path]) -> Metadata:
    karpathy = first_file(KARPATHY, places)
    split_of, texts = _read_karpathy(karpathy) if karpathy else ({}, {})
    lists = {name: first_file([name], places) for name in SPLIT_OF_LIST}
    missing = [name for name, path in lists.items() if path is None]
    if not missing:
        split_of = _read_lists([path for path in lists.values() if path])
    elif karpathy is None:
        raise UserError(f"{root}: no {', '.join(missing)}, and no dataset.json in their place; {CURE}")
    if tokens := first_file(["Flickr8k.token.txt"], places):
        texts = _read_tokens(tokens)
    speakers = first_file(["wav2spk.txt"], places)
    notes = [] if texts else ["no Flickr8k.token.txt or dataset.json: captions have no text"]
    notes += [] if speakers else ["no wav2spk.txt: speakers are unknown"]
    return Metadata(split_of, texts, read_pairs(speakers) if speakers else {}, tuple(notes))


def _read_lists(paths: list[Path]) -> dict[str, str]:
    split_of: dict[str, str] = {}
    for path in paths:
        split = SPLIT_OF_LIST[path.name]
        for place, image in read_lines(path):
            if split_of.setdefault(image, split) != split:
                raise UserError(f"{place}: {image} is in the list of {split_of[image]} too; remove it from one")
    return split_of


def _read_karpathy(path: Path) -> tuple[dict[str, str], dict[tuple[str, str], str]]:
    """The split of each image, and the text of each (image, caption number)."""
    split_of: dict[str, str] = {}
    texts = {}
    for record in read_json_records(path, "images", "Karpathy's")[1]:
        image, split = record.text("filename"), record.text("split")
        if split not in SPLIT_OF_KARPATHY:
            raise UserError(f"{record.place} has split {split!r}; use one of {', '.join(SPLIT_OF_KARPATHY)}")
        if split_of.setdefault(image, SPLIT_OF_KARPATHY[split]) != SPLIT_OF_KARPATHY[split]:
            raise UserError(f"{record.place}: {image} is in another split before; remove one")
        sentences = record.records("sentences") if "sentences" in record.values else []
        texts.update({(image, str(number)): sentence.optional("raw") for number, sentence in enumerate(sentences)})
    return split_of, texts


def _read_tokens(path: Path) -> dict[tuple[str, str], str]:
    """Lines "x.jpg#0<TAB>caption"; some name no image that there is, and are never asked for."""
    texts = {}
    for place, line in read_lines(path):
        key, tab, text = line.partition("\t")
        image, hash_sign, number = key.rpartition("#")
        if not tab or not hash_sign:
            raise UserError(f'{place}: {line[:60]!r} is not like "x.jpg#0<TAB>caption"; mend or remove it')
        texts[image, number.strip()] = text.strip()
    return texts


def _places(root: Path) -> list[Path]:
    """The folders in which metadata, wavs and images are looked for."""
    roots = [root, root.parent] if root.name in ("flickr_audio", "Flickr8k_text") else [root]
    return [folder / name for folder in roots for name in FOLDERS]


def _folder(names: Sequence[str], root: Path, places: list[Path]) -> Path:
    found = next((place / name for place in places for name in names if (place / name).is_dir()), None)
    if found is None:
        raise UserError(f"{root}: no folder {names[0]}; {CURE}")
    return found
