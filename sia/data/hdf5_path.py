"""What lies inside an HDF5 file, named like a file: `FILE.h5::DATASET`, or one row of it, `FILE.h5::DATASET[ROW]`.

So name corpora that others prepared their frames and images. This module loads no torch.
"""

import math
import re
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np

from sia.errors import UserError

CURE = "mend the file or give another one"
OPEN_FILES = 4
LARGEST_BYTES = 1 << 28  # of one caption or image

_INSIDE = re.compile(r"(?P<file>.+?)::(?P<dataset>[^\[\]]+)(?:\[(?P<row>\d+)\])?", re.DOTALL)


class Hdf5Path(NamedTuple):
    """A dataset of an HDF5 file, or a row of it."""

    file: str
    dataset: str
    row: int | None = None

    def __str__(self) -> str:
        return f"{self.file}::{self.dataset}" + ("" if self.row is None else f"[{self.row}]")


def parse(path: str) -> Hdf5Path | None:
    """The parts of `FILE.h5::DATASET[ROW]`; None for the path of a plain file."""
    match = _INSIDE.fullmatch(path)
    if match is None:
        return None
    return Hdf5Path(match["file"], match["dataset"], int(match["row"]) if match["row"] else None)


def open_unlocked(path: Path | str) -> h5py.File:
    """An HDF5 file to read, without a lock: Lustre and NFS may refuse one. Raises OSError."""
    # The argument is refused where h5py was built on an older library; there HDF5_USE_FILE_LOCKING=FALSE does it.
    unlocked = {"locking": False} if h5py.version.hdf5_version_tuple >= (1, 12, 1) else {}
    return h5py.File(path, "r", **unlocked)


def open_named(path: Path) -> h5py.File:
    """As open_unlocked, but raises UserError that names the file."""
    try:
        return open_unlocked(path)
    except OSError as error:
        raise UserError(f"{path}: no readable HDF5 file ({' '.join(str(error).split())}); {CURE}") from None


class LinkOut(ValueError):
    """What a file names lies elsewhere: in another place of it, or in another file."""


def held(group: h5py.Group, name: str) -> h5py.Group | h5py.Dataset | None:
    """What lies in the group itself under a name, which may be a path, or None.

    Raises LinkOut for a soft or an external link on the way, which may lead to any file of this machine.
    """
    for part in filter(None, name.split("/")):
        if not isinstance(group, h5py.Group) or (link := group.get(part, getlink=True)) is None:
            return None
        if not isinstance(link, h5py.HardLink):
            raise LinkOut(f"{part} is a link to somewhere else")
        group = group[part]
    return group


def held_dataset(group: h5py.Group, name: str) -> h5py.Dataset:
    """The dataset in the group. Raises KeyError where there is none, LinkOut where its values lie elsewhere."""
    dataset = held(group, name)
    if not isinstance(dataset, h5py.Dataset):
        raise KeyError(f"no dataset {name}")
    if dataset.external or dataset.is_virtual:
        raise LinkOut(f"the values of {name} lie in another file")
    return dataset


def check_size(dataset: h5py.Dataset, num_rows: int) -> None:
    """Raises ValueError where reading so many rows would take more than LARGEST_BYTES: a small file can ask for it."""
    row_bytes = dataset.dtype.itemsize * math.prod(dataset.shape[1:])
    chunk_bytes = dataset.dtype.itemsize * math.prod(dataset.chunks or ())
    if (asked := max(num_rows * row_bytes, chunk_bytes)) > LARGEST_BYTES:
        raise ValueError(f"it asks for {asked / 2**30:.1f} GiB, more than {LARGEST_BYTES / 2**30:.2g}")


def read_frames(path: str) -> np.ndarray:
    """The frames [T, F] of float32 at `FILE.h5::DATASET` or `FILE.h5::DATASET[ROW]`.

    Where a dataset `DATASET_len` lies beside it, a row is [F, columns], of which the first `DATASET_len[ROW]` are
    frames and the rest padding (ResDAVEnet). Raises UserError that names what is missing or of another shape.
    """
    values, length = _row(path)
    if values.ndim != 2 or values.dtype.kind not in "fiu":
        raise UserError(f"{path}: {values.dtype} of shape {list(values.shape)}, not frames [T, F]; {CURE}")
    frames = values if length is None else values[:, : max(0, length)].T
    return np.ascontiguousarray(frames, dtype=np.float32)


def read_bytes(path: str) -> bytes:
    """The image file of which `FILE.h5::DATASET[ROW]` holds the bytes. Raises UserError where it is not there."""
    values, _ = _row(path)
    if values.ndim != 1 or values.dtype != np.uint8:
        raise UserError(f"{path}: {values.dtype} of shape {list(values.shape)}, not the bytes of a file; {CURE}")
    return values.tobytes()


def _row(path: str) -> tuple[np.ndarray, int | None]:
    """A dataset or a row of it, and the number of its columns that are no padding, where the file tells it."""
    if (place := parse(path)) is None:
        raise UserError(f"{path}: a plain file, where FILE.h5::DATASET is expected; {CURE}")
    try:
        file = _opened(place.file, Path(place.file).stat().st_mtime_ns)
        dataset = held_dataset(file, place.dataset)
        if place.row is None:
            check_size(dataset, len(dataset) if dataset.shape else 1)
            return np.asarray(dataset[()]), None
        check_size(dataset, 1)
        values, length = np.asarray(dataset[place.row]), None
        if held(file, f"{place.dataset}_len") is not None:
            lengths = held_dataset(file, f"{place.dataset}_len")
            check_size(lengths, 1)
            length = int(lengths[place.row])
    except (OSError, KeyError, IndexError, ValueError, RuntimeError, TypeError) as error:
        raise UserError(f"{path}: cannot be read ({' '.join(str(error).split())}); {CURE}") from None
    return values, length


@lru_cache(maxsize=OPEN_FILES)
def _opened(file: str, modified: int) -> h5py.File:
    """Kept open from caption to caption; a file that was written anew in between (`modified`) is opened anew."""
    return open_unlocked(file)
