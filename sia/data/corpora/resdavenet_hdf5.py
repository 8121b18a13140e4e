"""Places audio captions as ResDAVEnet-VQ's dump_hdf5_dataset.py wrote them (Hsu, Harwath and Glass, ICLR 2020).

A JSON file a split, {"audio_hdf5_path", "image_hdf5_path"}, names two HDF5 files of aligned rows:

melspec       float32 [N, 40, 2048]   log mel spectra, 25 ms every 10 ms at 16 kHz, padded with zeros
melspec_len   int64   [N]             how many of its columns are frames; the tool cut longer ones at 2048
image         uint8   [N] of bytes    the image files

The files hold no names. So an utterance is named by its JSON file and row, and an image by the hash of its bytes:
captions of byte-identical images are captions of one image. A file's split is read off its name: train, dev, test; val
is the test split as in `places205`, or validation where there is a file of test. Without validation, seeded images are
held out of train. Every image is read once to be hashed, which for 400,000 of them takes a while.
"""

import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import h5py

from sia.data.corpora.held_out import hold_out, without_shared_images
from sia.data.corpora.metadata import first_file, read_text
from sia.data.hdf5_path import Hdf5Path, check_size, held_dataset, open_named
from sia.data.manifest import Dropped, Reading, SpokenCaption
from sia.errors import UserError
from sia.progress import tracked

CURE = "give the folder of the JSON files that dump_hdf5_dataset.py wrote with --root"
KEYS = ("audio_hdf5_path", "image_hdf5_path")
# What the tool computes, whatever it is given; its command line has no setting of these.
SPECTRUM = {"kind": "melspec", "sample_rate": 16_000, "n_fft": 400, "hop_length": 160, "source": "ResDAVEnet"}

_SPLIT = re.compile(r"train|dev|val|test")


class Dump(NamedTuple):
    """What one JSON file names: its split, the two HDF5 files, and the shape [N, F, columns] of its spectra."""

    path: Path
    split: str
    audio: Path
    images: Path
    shape: tuple[int, int, int]


def read(root: Path) -> Reading:
    """The captions of the JSON files in `root`. Raises UserError that names the file at fault."""
    described = {path: content for path in sorted(root.glob("*.json")) if (content := _described(path))}
    if not described:
        raise UserError(f"{root}: no JSON file with {' and '.join(KEYS)} there; {CURE}")
    has_test = any(_named_split(path) == "test" for path in described)
    split_of = {"train": "train", "dev": "validation", "test": "test", "val": "validation" if has_test else "test"}
    dumps = [_dump(path, content, split_of[_named_split(path)]) for path, content in described.items()]
    width, *others = sorted({dump.shape[1] for dump in dumps})
    if others:
        raise UserError(f"{root}: spectra of {[width, *others]} mel bands; give a folder with files of one width")
    dropped: list[Dropped] = []
    image_paths: dict[str, str] = {}
    captions = [caption for dump in dumps for caption in _captions(dump, image_paths, dropped)]
    captions, shared = without_shared_images(captions)
    notes = [f"{dump.path.name} is the {dump.split} split" for dump in dumps]
    if "validation" not in {dump.split for dump in dumps}:
        captions, told = hold_out(captions)
        notes.append(told)
    features = {**SPECTRUM, "coefficients": width, "mel_bands": width}
    return Reading(captions, dropped + shared, notes=tuple(notes), features=features)


def _described(path: Path) -> dict[str, Any] | None:
    """The file's object; None where it names no HDF5 files, and is somebody else's."""
    try:
        content = json.loads(read_text(path))
    except ValueError:
        return None
    return content if isinstance(content, dict) and set(KEYS) <= content.keys() else None


def _named_split(path: Path) -> str:
    match = _SPLIT.search(path.stem.lower())
    if match is None:
        raise UserError(f"{path}: its name tells no split; rename it to one with train, val, dev or test")
    return match[0]


def _dump(path: Path, content: dict[str, Any], split: str) -> Dump:
    audio, images = (_located(path, key, content[key]) for key in KEYS)
    with open_named(audio) as speech, open_named(images) as pictures:
        spectra, lengths = _dataset(speech, "melspec", 3), _dataset(speech, "melspec_len", 1)
        rows = {len(spectra), len(lengths), len(_dataset(pictures, "image", 1))}
        shape = spectra.shape
    if len(rows) > 1:
        raise UserError(f"{path}: {audio.name} and {images.name} have {sorted(rows)} rows; fetch both files again")
    return Dump(path, split, audio, images, shape)


def _located(path: Path, key: str, named: Any) -> Path:
    """The HDF5 file that the JSON file names, which often is a path of another machine: then the one beside it."""
    if not isinstance(named, str) or not named:
        raise UserError(f"{path}: {key} is {named!r}; give the path of an HDF5 file")
    found = first_file([named, Path(named).name], [path.parent])
    if found is None:
        raise UserError(f"{path}: {key} {named} is not there; put the file beside {path.name}")
    return found


def _dataset(file: h5py.File, name: str, dimensions: int) -> h5py.Dataset:
    try:
        dataset = held_dataset(file, name)
    except (KeyError, ValueError, OSError, RuntimeError) as error:
        raise UserError(f"{file.filename}: {name} cannot be read ({error}); fetch the file again") from None
    if dataset.ndim != dimensions:
        raise UserError(f"{file.filename}: no dataset {name} of {dimensions} dimensions; fetch the file again")
    return dataset


def _captions(dump: Dump, image_paths: dict[str, str], dropped: list[Dropped]) -> Iterator[SpokenCaption]:
    """A caption a row. image_paths: where each image was met first; those left out are added to `dropped`."""
    with open_named(dump.images) as file:
        held = _dataset(file, "image", 1)
        for row in tracked(range(dump.shape[0]), f"{dump.path.name}: images hashed", dump.shape[0]):
            name = f"{dump.path.stem}-{row:06d}"
            try:
                check_size(held, 1)
                image_id = hashlib.sha256(held[row].tobytes()).hexdigest()[:16]
            except (OSError, RuntimeError, ValueError) as error:
                dropped.append(Dropped(name, "unreadable image", f"{dump.images}: {error}"))
                continue
            here = str(Hdf5Path(str(dump.images), "image", row))
            speech = str(Hdf5Path(str(dump.audio), "melspec", row))
            yield SpokenCaption(name, image_id, speech, image_paths.setdefault(image_id, here), dump.split)
