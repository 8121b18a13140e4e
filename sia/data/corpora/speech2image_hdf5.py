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

import h5py

from sia.data.corpora import places205
from sia.data.corpora.flickr8k import IMAGE_FOLDERS, KARPATHY, read_karpathy
from sia.data.corpora.metadata import first_file
from sia.data.hdf5_path import Hdf5Path, LinkOut, held, open_named, parse
from sia.data.manifest import Dropped, Reading, SpokenCaption
from sia.errors import UserError

CURE = "give the folder of the .h5 file, the corpus's images and its splits with --root"
FILES = ("flickr_features.h5", "places_features.h5")
# The tool's `raw` is not among them: it is samples for speech, pixels for images.
FEATURES = ("mfcc", "fbanks", "freq_spectrum", "mbn")
FLICKR, PLACES, SUBGROUP = "flickr_", "places_", "subgroup_"

Spoken = dict[str, list[str]]  # by the name of an image's or utterance's group: the paths of its arrays


def read(root: Path) -> Reading:
    """The captions of the .h5 file in the folder `root`, or of `root` itself, FILE.h5 or FILE.h5::FEATURE.

    Raises UserError that names the file at fault.
    """
    place = parse(str(root))
    path, wanted = (Path(place.file), (place.dataset,)) if place else (_found(root), FEATURES)
    try:
        with open_named(path) as file:
            feature, coefficients = _feature(path, file, wanted)
            spoken = {name: [array.name for array in _arrays(group, feature)] for name, group in _groups(file)}
    except LinkOut as error:
        raise UserError(f"{path}: {error}; fetch the file again") from None
    reading = _flickr(path, spoken) if next(iter(spoken)).startswith(FLICKR) else _places(path, spoken)
    return reading._replace(
        notes=(f"frames are {feature} of {path.name}", *reading.notes),
        features={"kind": feature, "coefficients": coefficients, "source": "speech2image"},
    )


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
    """The group of each image (Flickr8k) or utterance (Places), after its own name."""
    for name in file:
        group = held(file, name) if name.startswith((FLICKR, SUBGROUP)) else None
        if isinstance(group, h5py.Group) and name.startswith(FLICKR):
            yield name, group
        elif isinstance(group, h5py.Group):
            inner = ((below, held(group, below)) for below in group if below.startswith(PLACES))
            yield from ((below, found) for below, found in inner if isinstance(found, h5py.Group))


def _feature(path: Path, file: h5py.File, wanted: tuple[str, ...]) -> tuple[str, int]:
    """The first feature of those wanted that an image or utterance has, and its numbers a frame."""
    present: set[str] = set()
    for _, group in _groups(file):
        present |= set(group)
        for feature in wanted:
            for array in _arrays(group, feature):
                return feature, int(array.shape[-1])
    if not present:
        raise UserError(f"{path}: no groups {FLICKR}* or {SUBGROUP}*/{PLACES}* that hold anything; {CURE}")
    raise UserError(
        f"{path}: no feature {' or '.join(wanted)} there, but {', '.join(sorted(present))}; "
        "name one of speech with --root FILE.h5::FEATURE"
    )


def _arrays(group: h5py.Group, feature: str) -> list[h5py.Dataset]:
    """The arrays [T, F] of a feature, whose names are those of recordings."""
    below = held(group, feature)
    arrays = [held(below, name) for name in below] if isinstance(below, h5py.Group) else []
    return [array for array in arrays if isinstance(array, h5py.Dataset) and array.ndim == 2]


def _flickr(path: Path, spoken: Spoken) -> Reading:
    folder = path.parent
    listed = first_file(KARPATHY, [folder])
    if listed is None:
        raise UserError(f"{folder}: no {KARPATHY[0]}, which names the splits; {CURE}")
    split_of, texts = read_karpathy(listed)
    file_of = {Path(name).stem: name for name in split_of}
    images = next((folder / name for name in IMAGE_FOLDERS if (folder / name).is_dir()), folder)
    captions, dropped = [], []
    for group, arrays in spoken.items():
        image_id = file_of.get(group.removeprefix(FLICKR), "")
        for array in arrays:
            name = array.rpartition("/")[2].removeprefix(FLICKR)
            image, _, number = name.rpartition("_")
            # The tool gave an image each recording whose name holds the image's, be it another's that is longer.
            if image != group.removeprefix(FLICKR):
                dropped.append(Dropped(name, "its recording is one of another image", f"{path}::/{group}"))
            elif not image_id:
                dropped.append(Dropped(name, "its image is in no split", f"{path}::/{group}"))
            else:
                speech, text = str(Hdf5Path(str(path), array)), texts.get((image_id, number), "")
                shown, split = str(images / image_id), split_of[image_id]
                captions.append(SpokenCaption(name, image_id, speech, shown, split, language="en", text=text))
    return Reading(captions, dropped)


def _places(path: Path, spoken: Spoken) -> Reading:
    reading = places205.read(path.parent)
    arrays = {group.removeprefix(PLACES): paths[0] for group, paths in spoken.items() if paths}
    captions, dropped = [], [*reading.dropped]
    for caption in reading.captions:
        if array := arrays.pop(caption.utterance_id.replace("-", "_"), ""):
            captions.append(replace(caption, speech_path=str(Hdf5Path(str(path), array))))
        else:
            dropped.append(Dropped(caption.utterance_id, "no frames of it in the HDF5 file", str(path)))
    known = {entry.utterance_id.replace("-", "_") for entry in reading.dropped}
    dropped += [Dropped(name, "in no metadata", str(path)) for name in arrays if name not in known]
    return Reading(captions, dropped, notes=reading.notes)
