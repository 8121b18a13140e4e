"""The HDF5 layout of a prepared corpus's shard: speech frames of captions, and the images they describe.

frames         float32 [F, 40]   the frames of all captions, one after the other; of imported features, another width
frame_offsets  int64   [N + 1]   caption n owns frames[frame_offsets[n] : frame_offsets[n + 1]]
frame_crcs     uint32  [N]       CRC-32 of each caption's frames, compared at each reading
captions       JSON    [N]       the caption's record, as JSON again
digests        JSON    [N]       hash of a caption's record, frames and image
image_bytes    uint8   [P]       PNG, JPEG or other image files, one after the other
image_offsets  int64   [M + 1]
image_crcs     uint32  [M]       likewise
image_ids      JSON    [M]
dropped        JSON    [K]       utterances left out of this shard, as JSON again

JSON is a list of strings, stored as its bytes: HDF5's own strings end the process that reads them where they are
damaged. The attribute `checksum` is the SHA-256 of the other attributes and of all these, but the CRCs stand for
`frames` and `image_bytes`: who reads captions compares it with the one that corpus.json tells, and each row with its
CRC. Datasets are contiguous: a row is read in one piece, at a known place of the file, without HDF5.
"""

import hashlib
import json
import math
import os
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sized
from contextlib import AbstractContextManager, contextmanager
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import h5py
import numpy as np

from sia.atomic import write_atomically
from sia.data.hdf5_path import open_unlocked
from sia.data.manifest import Dropped, SpokenCaption, record_of
from sia.errors import UserError, one_line

LAYOUT_VERSION = 3
CHECKSUM = "checksum"
CHECKED_BY_ROW = ("frames", "image_bytes")
DATASETS = (
    *CHECKED_BY_ROW,
    *("frame_offsets", "frame_crcs", "captions", "digests", "image_offsets", "image_crcs", "image_ids", "dropped"),
)
OPEN_FILES = 256  # of a process; another one is closed for each that is opened beyond
CURE = "`python jobs/prepare.py --verify` tells what else is; delete the file, and prepare the corpus as before"

# What h5py, HDF5 and JSON raise for bytes that were changed.
DAMAGED = (OSError, RuntimeError, LookupError, ValueError, TypeError, AttributeError, MemoryError)


def shard_path(folder: Path, number: int) -> Path:
    return folder / "shards" / f"{number:05d}.h5"


class ShardWriter:
    """Collects captions and images, then writes the shard as a whole: a file is either complete or not there."""

    def __init__(self, attributes: dict[str, Any]) -> None:
        self.attributes = attributes
        self.captions: list[SpokenCaption] = []
        self.digests: list[str] = []
        self.frames: list[np.ndarray] = []
        self.frame_crcs: list[int] = []
        self.images: dict[str, bytes] = {}
        self.dropped: list[Dropped] = []

    def add(self, caption: SpokenCaption, frames: np.ndarray, image: bytes) -> None:
        """One caption with its frames [T, 40] and the encoded file of its image."""
        frames = np.ascontiguousarray(frames, dtype=np.float32)
        self.captions.append(caption)
        self.digests.append(caption_digest(caption, frames, image))
        self.frames.append(frames)
        self.frame_crcs.append(zlib.crc32(frames.data))
        self.images.setdefault(caption.image_id, image)

    def extend(self, other: "ShardWriter") -> None:
        """What another one collected comes after what this one did."""
        self.attributes |= other.attributes
        self.captions += other.captions
        self.digests += other.digests
        self.frames += other.frames
        self.frame_crcs += other.frame_crcs
        self.images |= other.images
        self.dropped += other.dropped

    def write(self, path: Path) -> None:
        write_atomically(path, self._fill)

    def _fill(self, stream: Any) -> None:
        # Of this format HDF5 keeps checksums of its own metadata; of older ones it does not.
        with h5py.File(stream, "w", libver="v110") as shard:
            shard.attrs["layout_version"] = LAYOUT_VERSION
            shard.attrs.update({name: np.bytes_(json.dumps(value)) for name, value in self.attributes.items()})
            shard["frames"] = np.concatenate(self.frames) if self.frames else np.zeros((0, 0), np.float32)
            shard["image_bytes"] = np.frombuffer(b"".join(self.images.values()), dtype=np.uint8)
            shard["frame_offsets"], shard["frame_crcs"] = _offsets(self.frames), np.array(self.frame_crcs, np.uint32)
            images = self.images.values()
            shard["image_offsets"] = _offsets(images)
            shard["image_crcs"] = np.array([zlib.crc32(image) for image in images], np.uint32)
            strings = {
                "captions": [json.dumps(record_of(caption)) for caption in self.captions],
                "digests": self.digests,
                "image_ids": list(self.images),
                "dropped": [json.dumps(record_of(entry)) for entry in self.dropped],
            }
            for name, values in strings.items():
                shard[name] = np.frombuffer(json.dumps(values).encode(), dtype=np.uint8)
            shard.attrs[CHECKSUM] = np.bytes_(checksum(shard.attrs, shard))


def _offsets(rows: Iterable[Sized]) -> np.ndarray:
    """Where each of the rows ends, after a 0."""
    return np.cumsum([0, *map(len, rows)], dtype=np.int64)


def caption_digest(caption: SpokenCaption, frames: np.ndarray, image: bytes) -> str:
    """Sixteen hexadecimal digits of the hash of a caption's record, frames [T, F] of float32 and image file."""
    # Paths are left out: the same corpus may lie elsewhere.
    record = json.dumps([caption.utterance_id, caption.image_id, caption.split])
    content = hashlib.sha256(record.encode())
    content.update(np.ascontiguousarray(frames).data)
    content.update(image)
    return content.hexdigest()[:16]


def checksum(attributes: Mapping[str, Any], datasets: Mapping[str, Any]) -> str:
    """SHA-256 over a shard's attributes (but the checksum itself) and the names, shapes and bytes of its datasets.

    Of frames and images the CRCs are taken instead of the bytes.
    """
    content = hashlib.sha256()
    for name, value in sorted(attributes.items()):
        if name != CHECKSUM:
            content.update(name.encode() + b"=" + np.asarray(value).tobytes() + b"\n")
    for name in sorted(DATASETS):
        dataset = datasets[name]
        content.update(f"{name} {dataset.dtype.str} {dataset.shape}\n".encode())
        if name not in CHECKED_BY_ROW:
            content.update(dataset[:].tobytes())
    return content.hexdigest()


class Place(NamedTuple):
    """Where a dataset lies in its file, of which it is read without HDF5; few files are kept open."""

    path: str
    modified: tuple[int, int]  # the file's inode and time: one that took its place is opened anew
    start: int  # in bytes
    dtype: np.dtype[Any]
    shape: tuple[int, ...]

    def items(self, first: int, end: int) -> np.ndarray:
        """Those from `first` to before `end`. Raises ValueError or OSError where they are not there."""
        if not 0 <= first <= end <= self.shape[0]:
            raise ValueError(f"{first} to {end} of {self.shape[0]} items")
        values = np.empty((end - first, *self.shape[1:]), self.dtype)
        if values.nbytes:
            file, start = _opened(self.path, self.modified), self.start + first * (values.nbytes // len(values))
            if os.preadv(file.fileno(), [values.data], start) != values.nbytes:
                raise ValueError("the file is cut short")
        return values


class Rows(NamedTuple):
    """The frames of a shard's captions, or its images."""

    place: Place
    offsets: np.ndarray  # [N + 1]
    crcs: np.ndarray  # [N]

    def read(self, row: int) -> np.ndarray:
        """The frames [T, 40] or the bytes [n] of a row. Raises ValueError where they are not those that were written,
        OSError where they cannot be read.
        """
        values = self.place.items(self.offsets.item(row), self.offsets.item(row + 1))
        if zlib.crc32(values.data) != self.crcs.item(row):
            raise ValueError("not what was written")
        return values


@lru_cache(OPEN_FILES)
def _opened(path: str, modified: tuple[int, int]) -> BinaryIO:
    return open(path, "rb", buffering=0)


def open_rows(path: Path, expected: str) -> tuple[Rows, Rows]:
    """The frames and the images of a shard with the checksum `expected`. Raises UserError for another one."""
    with ShardReader(path) as shard:
        if shard.checksum != expected:
            raise UserError(
                f"{path}: not a shard of the corpus that was opened, which was prepared anew since; "
                "begin again on what is there now, or prepare the corpus as it was"
            )
        return shard.frames, shard.images


class ShardReader(AbstractContextManager["ShardReader"]):
    """What a shard tells. Raises UserError for a file that is missing, damaged, or of another layout version."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self.file = open_unlocked(path)
            version = self.file.attrs.get("layout_version")
            self.checksum = bytes(self.file.attrs.get(CHECKSUM, b"")).decode("ascii", "replace")
        except DAMAGED as error:
            problem = "missing" if not path.exists() else f"not a readable HDF5 file ({one_line(str(error))})"
            raise UserError(f"{path}: shard is {problem}; run `python jobs/prepare.py` for its corpus again") from None
        if version != LAYOUT_VERSION:
            raise UserError(
                f"{path}: shard of layout version {version}, this program reads {LAYOUT_VERSION}; "
                "delete it and run `python jobs/prepare.py` for its corpus again"
            )

    def __exit__(self, *error: object) -> None:
        self.file.close()

    def check(self) -> None:
        """Raises UserError where anything but frames and images is not what was written."""
        with self._reading("checksum"):
            found: dict[str, Any] = {name: self._place(name) for name in CHECKED_BY_ROW}
            found |= {name: self._values(name) for name in DATASETS if name not in CHECKED_BY_ROW}
            if checksum(self.file.attrs, found) != self.checksum:
                raise ValueError("it is not that of the content")

    @cached_property
    def frames(self) -> Rows:
        return self._rows("frames", "frame")

    @cached_property
    def images(self) -> Rows:
        return self._rows("image_bytes", "image")

    def attribute(self, name: str) -> Any:
        """The value of an attribute, or None where the shard has none of that name."""
        with self._reading(name):
            value = self.file.attrs.get(name)
            return None if value is None else json.loads(value)

    def strings(self, name: str) -> list[str]:
        """The strings of a dataset: captions, digests, image_ids or dropped."""
        with self._reading(name):
            return list(json.loads(self._values(name).tobytes()))

    def captions(self) -> list[SpokenCaption]:
        lines = self.strings("captions")
        with self._reading("captions"):
            return [SpokenCaption(**json.loads(line)) for line in lines]

    def _rows(self, name: str, kind: str) -> Rows:
        with self._reading(name):
            return Rows(self._place(name), self._values(f"{kind}_offsets"), self._values(f"{kind}_crcs"))

    def _values(self, name: str) -> np.ndarray:
        place = self._place(name)
        return place.items(0, place.shape[0])

    def _place(self, name: str) -> Place:
        """Raises ValueError for a dataset that lies elsewhere or in pieces, or has more bytes than the file."""
        link = self.file.id.links.get_info(name.encode())
        dataset = h5py.h5d.open(self.file.id, name.encode())
        layout, file = dataset.get_create_plist(), self.path.stat()
        in_one_piece = layout.get_layout() == h5py.h5d.CONTIGUOUS and not layout.get_external_count()
        start = dataset.get_offset() or 0  # None where it is empty
        size = dataset.dtype.itemsize * math.prod(dataset.shape)
        if link.type != h5py.h5l.TYPE_HARD or not in_one_piece or start + size > file.st_size:
            raise ValueError(f"{name} is not as it was written")
        return Place(str(self.path), (file.st_ino, file.st_mtime_ns), start, dataset.dtype, dataset.shape)

    @contextmanager
    def _reading(self, what: str) -> Iterator[None]:
        try:
            yield
        except DAMAGED as error:
            raise UserError(f"{self.path}: {what} cannot be read ({one_line(str(error))}); {CURE}") from None
