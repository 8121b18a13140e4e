"""Flickr8k and Places with the speech features of speech2image's files (Merkx, Frank and Ernestus, Interspeech 2019).

Flickr8k: /flickr_IMAGE/FEATURE/flickr_IMAGE_NUMBER; splits and texts are those of Karpathy's dataset.json beside the
file. Places: /subgroup_N/places_UTTERANCE/FEATURE/places_WAV, each "-" of the utterance's id written "_"; splits, texts
and images are those of Places' own metadata beside it, in any form that `places205` reads. Arrays are [T, F].

FEATURE is the first there is of FEATURES below, or the one named in `--root FILE.h5::FEATURE`. Images come from the
corpus's own folder, never from the file's (which are those of a network trained on labels). The file does not tell how
far apart its frames are (10 ms by the tool's default), so hours of speech are not counted.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import h5py

from sia.data.corpora import places205
from sia.data.corpora.flickr8k import IMAGE_FOLDERS, KARPATHY, SPLIT_OF_KARPATHY
from sia.data.corpora.records import Record, first_file, read_json_records
from sia.data.hdf5_path import Hdf5Path, LinkOut, held, open_named, parse
from sia.data.manifest import Dropped, Reading, SpokenCaption
from sia.errors import UserError

CURE = "give the folder of the .h5 file, the corpus's images and its splits with --root"
FILES = ("flickr_features.h5", "places_features.h5")
# The tool's `raw` is not among them: it is samples for speech, pixels for images.
FEATURES = ("mfcc", "fbanks", "freq_spectrum", "mbn")
FLICKR, PLACES, SUBGROUP = "flickr_", "places_", "subgroup_"


class Source(NamedTuple):
    """The file that is read, the feature that is taken from it, and its numbers a frame."""

    file: Path
    feature: str
    coefficients: int


def read(root: Path) -> Reading:
    """The captions of the .h5 file in the folder `root`, or of `root` itself, FILE.h5 or FILE.h5::FEATURE.

    Raises UserError that names the file at fault.
    """
    place = parse(str(root))
    path, wanted = (Path(place.file), (place.dataset,)) if place else (_found(root), FEATURES)
    try:
        with open_named(path) as file:
            source = _source(path, file, wanted)
            found = {name: list(_arrays(group, source.feature)) for name, group in _groups(file)}
    except LinkOut as error:
        raise UserError(f"{path}: {error}; fetch the file again") from None
    flickr = next(iter(found)).startswith(f"/{FLICKR}")
    captions, dropped, notes = _flickr(source, found) if flickr else _places(source, found)
    features = {"kind": source.feature, "coefficients": source.coefficients, "source": "speech2image"}
    return Reading(captions, dropped, notes=(f"frames are {source.feature} of {path.name}", *notes), features=features)


def _found(root: Path) -> Path:
    """The .h5 file in a folder: that of the tool's name, or the only one."""
    if root.is_file():
        return root
    files = [root / name for name in FILES if (root / name).is_file()] or sorted(root.glob("*.h5"))
    if len(files) != 1:
        problem = f"several .h5 files ({', '.join(path.name for path in files)})" if files else "no .h5 file there"
        raise UserError(f"{root}: {problem}; give the path of one with --root")
    return files[0]


def _groups(file: h5py.File) -> Iterator[tuple[str, h5py.Group]]:
    """The group of each image (Flickr8k) or utterance (Places), by its path."""
    for name in file:
        group = held(file, name) if name.startswith((FLICKR, SUBGROUP)) else None
        if not isinstance(group, h5py.Group):
            continue
        if name.startswith(FLICKR):
            yield f"/{name}", group
        else:
            yield from ((f"/{name}/{below}", held(group, below)) for below in group if below.startswith(PLACES))


def _source(path: Path, file: h5py.File, wanted: tuple[str, ...]) -> Source:
    """The first feature of those wanted that an image or utterance has."""
    present: set[str] = set()
    for _, group in _groups(file):
        present |= set(group)
        for feature in wanted:
            for array in _arrays(group, feature).values():
                return Source(path, feature, int(array.shape[-1]))
    if not present:
        raise UserError(f"{path}: no groups {FLICKR}* or {SUBGROUP}*/{PLACES}* that hold anything; {CURE}")
    raise UserError(
        f"{path}: no feature {' or '.join(wanted)} there, but {', '.join(sorted(present))}; "
        "name one of speech with --root FILE.h5::FEATURE"
    )


def _arrays(group: h5py.Group, feature: str) -> dict[str, h5py.Dataset]:
    """The arrays [T, F] of a feature, by their names, which are those of recordings."""
    below = held(group, feature) if isinstance(group, h5py.Group) else None
    arrays = {name: held(below, name) for name in below} if isinstance(below, h5py.Group) else {}
    return {name: array for name, array in arrays.items() if isinstance(array, h5py.Dataset) and array.ndim == 2}


def _speech_path(source: Source, group: str, array: str) -> str:
    return str(Hdf5Path(str(source.file), f"{group}/{source.feature}/{array}"))


def _flickr(source: Source, found: dict[str, list[str]]) -> tuple[list[SpokenCaption], list[Dropped], tuple[str, ...]]:
    folder = source.file.parent
    listed = first_file(KARPATHY, [folder])
    if listed is None:
        raise UserError(f"{folder}: no {KARPATHY[0]}, which names the splits; {CURE}")
    records = {Path(r.text("filename")).stem: r for r in read_json_records(listed, "images", "Karpathy's")[1]}
    images = next((folder / name for name in IMAGE_FOLDERS if (folder / name).is_dir()), folder)
    captions, dropped = [], []
    for group, arrays in found.items():
        image = group.removeprefix(f"/{FLICKR}")
        for array in arrays:
            name = array.removeprefix(FLICKR)
            if reason := _why_dropped(image, name, records):
                dropped.append(Dropped(name, reason, f"{source.file}::{group}"))
            else:
                speech = _speech_path(source, group, array)
                captions.append(_flickr_caption(name, speech, images, records[image]))
    return captions, dropped, ()


def _why_dropped(image: str, name: str, records: dict[str, Record]) -> str:
    """Why an array is left out, or "" where it is not."""
    # The tool gave an image each recording whose name holds the image's, be it another's that is longer.
    if name.rpartition("_")[0] != image:
        return "its recording is one of another image"
    return "" if image in records else "its image is in no split"


def _flickr_caption(name: str, speech: str, images: Path, record: Record) -> SpokenCaption:
    split, number = record.text("split"), name.rpartition("_")[2]
    if split not in SPLIT_OF_KARPATHY:
        raise UserError(f"{record.place} has split {split!r}; use one of {', '.join(SPLIT_OF_KARPATHY)}")
    sentences = record.records("sentences") if "sentences" in record.values else []
    told = sentences[int(number)].optional("raw") if number.isdecimal() and int(number) < len(sentences) else ""
    filename = record.text("filename")
    return SpokenCaption(
        name, filename, speech, str(images / filename), SPLIT_OF_KARPATHY[split], language="en", text=told
    )


def _places(source: Source, found: dict[str, list[str]]) -> tuple[list[SpokenCaption], list[Dropped], tuple[str, ...]]:
    reading = places205.read(source.file.parent)
    arrays = {
        group.rpartition("/")[2].removeprefix(PLACES): _speech_path(source, group, names[0])
        for group, names in found.items()
        if names
    }
    captions, dropped = [], [*reading.dropped]
    for caption in reading.captions:
        if speech := arrays.pop(caption.utterance_id.replace("-", "_"), ""):
            captions.append(replace(caption, speech_path=speech))
        else:
            dropped.append(Dropped(caption.utterance_id, "no frames of it in the HDF5 file", str(source.file)))
    known = {entry.utterance_id.replace("-", "_") for entry in reading.dropped}
    dropped += [Dropped(name, "in no metadata", str(source.file)) for name in arrays if name not in known]
    return captions, dropped, reading.notes
