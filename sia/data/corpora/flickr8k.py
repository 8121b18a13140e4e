"""Flickr8k Audio: 40,000 readings of Flickr8k's captions (Harwath and Glass, ASRU 2015).

flickr_audio/ holds wavs/, wav2capt.txt ("x_0.wav x.jpg #0") and wav2spk.txt ("x_0.wav 3"). The splits are
Flickr_8k.trainImages.txt, devImages and testImages, or those of Karpathy's dataset.json; dev is validation.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

from sia.data.corpora.metadata import collect, first_file, read_json_records, read_lines, read_pairs
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

SplitOf = dict[str, str]  # by image
Texts = dict[tuple[str, str], str]  # by image and caption number


def read(root: Path) -> Reading:
    """The captions under `root`, the corpus's folder or its flickr_audio.

    A recording that is missing, or whose image is in no split, is dropped. Raises UserError that names the file, and
    the line, at fault.
    """
    roots = [root, root.parent] if root.name in ("flickr_audio", "Flickr8k_text") else [root]
    places = [folder / name for folder in roots for name in FOLDERS]
    listed = first_file(["wav2capt.txt"], places)
    if listed is None:
        raise UserError(f"{root}: no wav2capt.txt; {CURE}")
    wavs, images = _folder(["wavs"], root, places), _folder(IMAGE_FOLDERS, root, places)
    split_of, texts = _splits_and_texts(root, places)
    speakers = first_file(["wav2spk.txt"], places)
    speaker_of = read_pairs(speakers) if speakers else {}
    present = {path.name for path in wavs.iterdir()}
    placed, dropped = [], []
    for place, wav, image, number in _read_wav2capt(listed):
        name, speech, shown = Path(wav).stem, str(wavs / wav), str(images / image)
        if image not in split_of:
            dropped.append(Dropped(name, "its image is in no split", image))
        elif wav not in present:
            dropped.append(Dropped(name, "no such recording", speech))
        else:
            told = (split_of[image], speaker_of.get(wav, ""), "en", texts.get((image, number), ""))
            placed.append((place, SpokenCaption(name, image, speech, shown, *told)))
    notes = [] if texts else ["no Flickr8k.token.txt or dataset.json: captions have no text"]
    notes += [] if speakers else ["no wav2spk.txt: speakers are unknown"]
    return Reading(collect(placed), dropped, notes=tuple(notes))


def _folder(names: Sequence[str], root: Path, places: list[Path]) -> Path:
    found = next((place / name for place in places for name in names if (place / name).is_dir()), None)
    if found is None:
        raise UserError(f"{root}: no folder {names[0]}; {CURE}")
    return found


def _read_wav2capt(path: Path) -> Iterator[tuple[str, str, str, str]]:
    """Place, wav, image and caption number of each line."""
    for place, line in read_lines(path):
        words = line.split()
        if len(words) != 3 or not words[2].startswith("#"):
            raise UserError(f'{place}: {line!r} is not like "x_0.wav x.jpg #0"; mend or remove it')
        yield place, words[0], words[1], words[2][1:]


def _splits_and_texts(root: Path, places: list[Path]) -> tuple[SplitOf, Texts]:
    """Of the lists and the token file, and of Karpathy's where one of these is missing."""
    karpathy = first_file(KARPATHY, places)
    split_of, texts = read_karpathy(karpathy) if karpathy else ({}, {})
    lists = {name: first_file([name], places) for name in SPLIT_OF_LIST}
    missing = [name for name, path in lists.items() if path is None]
    if missing and karpathy is None:
        raise UserError(f"{root}: no {', '.join(missing)}, and no dataset.json in their place; {CURE}")
    if not missing:
        split_of = _read_lists([path for path in lists.values() if path])
    tokens = first_file(["Flickr8k.token.txt"], places)
    return split_of, _read_tokens(tokens) if tokens else texts


def _read_lists(paths: list[Path]) -> SplitOf:
    split_of: SplitOf = {}
    for path in paths:
        split = SPLIT_OF_LIST[path.name]
        for place, image in read_lines(path):
            if split_of.setdefault(image, split) != split:
                raise UserError(f"{place}: {image} is in the list of {split_of[image]} too; remove it from one")
    return split_of


def read_karpathy(path: Path) -> tuple[SplitOf, Texts]:
    """The splits and texts of Karpathy's dataset.json. Raises UserError that names the record at fault."""
    split_of: SplitOf = {}
    texts: Texts = {}
    for record in read_json_records(path, "images", "Karpathy's")[1]:
        image, split = record.text("filename"), record.one_of("split", SPLIT_OF_KARPATHY)
        if split_of.setdefault(image, split) != split:
            raise UserError(f"{record.place}: {image} is in another split before; remove one")
        sentences = record.records("sentences") if "sentences" in record.values else []
        texts.update({(image, str(number)): sentence.optional("raw") for number, sentence in enumerate(sentences)})
    return split_of, texts


def _read_tokens(path: Path) -> Texts:
    """Lines "x.jpg#0<TAB>caption"; some name no image that there is, and are never asked for."""
    texts = {}
    for place, line in read_lines(path):
        key, tab, text = line.partition("\t")
        image, hash_sign, number = key.rpartition("#")
        if not tab or not hash_sign:
            raise UserError(f'{place}: {line[:60]!r} is not like "x.jpg#0<TAB>caption"; mend or remove it')
        texts[image, number.strip()] = text.strip()
    return texts
