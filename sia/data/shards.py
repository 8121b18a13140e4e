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
`frames` and `image_bytes`: it is compared when a shard is opened. Datasets are contiguous: a reading is one of bytes at
a known place.
"""

import hashlib
import json
import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

import h5py
import numpy as np

from sia.atomic import write_atomically
from sia.data.hdf5_path import held_dataset, open_unlocked
from sia.data.manifest import Dropped, SpokenCaption
from sia.errors import UserError

LAYOUT_VERSION = 3
CHECKSUM = "checksum"
CHECKED_BY_ROW = ("frames", "image_bytes")
DATASETS = (
    *CHECKED_BY_ROW,
    *("frame_offsets", "frame_crcs", "captions", "digests", "image_offsets", "image_crcs", "image_ids", "dropped"),
)


class ShardWriter:
    """Collects captions and images, then writes the shard as a whole: a file is either complete or not there."""

    def __init__(self, attributes: dict[str, Any]) -> None:
        self.attributes = attributes
        self.captions: list[SpokenCaption] = []
        self.frames: list[np.ndarray] = []
        self.images: dict[str, bytes] = {}
        self.dropped: list[Dropped] = []

    def add(self, caption: SpokenCaption, frames: np.ndarray, image: bytes) -> None:
        """One caption with its frames [T, 40] and the encoded file of its image."""
        self.captions.append(caption)
        self.frames.append(np.ascontiguousarray(frames, dtype=np.float32))
        self.images.setdefault(caption.image_id, image)

    def drop(self, utterance_id: str, reason: str, detail: str) -> None:
        self.dropped.append(Dropped(utterance_id, reason, detail))

    def write(self, path: Path) -> None:
        write_atomically(path, self._fill)

    def _fill(self, stream: Any) -> None:
        # Of this format HDF5 keeps checksums of its own metadata; of older ones it does not.
        with h5py.File(stream, "w", libver="v110") as shard:
            shard.attrs["layout_version"] = LAYOUT_VERSION
            shard.attrs.update({name: np.bytes_(json.dumps(value)) for name, value in self.attributes.items()})
            width = self.frames[0].shape[1] if self.frames else 0
            shard["frames"] = np.concatenate(self.frames) if self.frames else np.zeros((0, width), np.float32)
            shard["frame_offsets"] = _offsets(len(frames) for frames in self.frames)
            shard["frame_crcs"] = _crcs(self.frames)
            shard["image_bytes"] = np.frombuffer(b"".join(self.images.values()), dtype=np.uint8)
            shard["image_offsets"] = _offsets(len(image) for image in self.images.values())
            shard["image_crcs"] = _crcs(self.images.values())
            _write_strings(shard, "image_ids", self.images)
            _write_strings(shard, "captions", (json.dumps(asdict(caption)) for caption in self.captions))
            _write_strings(shard, "digests", map(self._digest, self.captions, self.frames))
            _write_strings(shard, "dropped", (json.dumps(asdict(entry)) for entry in self.dropped))
            shard.attrs[CHECKSUM] = np.bytes_(checksum(shard.attrs, shard))

    def _digest(self, caption: SpokenCaption, frames: np.ndarray) -> str:
        return caption_digest(caption, frames, self.images[caption.image_id])


def caption_digest(caption: SpokenCaption, frames: np.ndarray, image: bytes) -> str:
    """Sixteen hexadecimal digits of the hash of a caption's record, frames [T, F] of float32 and image file."""
    # Paths are left out: the same corpus may lie elsewhere.
    record = json.dumps([caption.utterance_id, caption.image_id, caption.split])
    return hashlib.sha256(record.encode() + frames.tobytes() + image).hexdigest()[:16]


def checksum(attributes: Mapping[str, Any], datasets: Mapping[str, h5py.Dataset]) -> str:
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


CURE = "`python jobs/prepare.py --verify` tells what else is; delete the file, and prepare the corpus as before"
Value = TypeVar("Value")

# What h5py, HDF5 and JSON raise for bytes that were changed.
_DAMAGED = (OSError, RuntimeError, LookupError, ValueError, TypeError, AttributeError, MemoryError)


class ShardReader:
    """Reads one shard; open it in the process that reads.

    Raises UserError for a file that is missing, damaged, or of another layout version. What the shard tells of its rows
    is compared with its checksum by `check`; frames and images are compared with theirs whenever they are read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self.file = open_unlocked(path)
            version = self.file.attrs.get("layout_version")
        except _DAMAGED as error:
            problem = "missing" if not path.exists() else f"not a readable HDF5 file ({' '.join(str(error).split())})"
            raise UserError(f"{path}: shard is {problem}; run `python jobs/prepare.py` for its corpus again") from None
        if version != LAYOUT_VERSION:
            raise UserError(
                f"{path}: shard of layout version {version}, this program reads {LAYOUT_VERSION}; "
                "delete it and run `python jobs/prepare.py` for its corpus again"
            )
        self._datasets = {name: self._dataset(name) for name in DATASETS}
        self.frame_offsets, self.image_offsets = self.values("frame_offsets"), self.values("image_offsets")
        self.frame_crcs, self.image_crcs = self.values("frame_crcs"), self.values("image_crcs")

    @property
    def checksum(self) -> str:
        """The one that was written; empty where there is none."""
        return self._guarded(CHECKSUM, lambda: bytes(self.file.attrs.get(CHECKSUM, b"")).decode("ascii", "replace"))

    def check(self, expected: str | None = None) -> None:
        """Raises UserError where the shard is damaged, or another one than that of the checksum `expected`."""
        found = self._guarded("checksum", lambda: checksum(self.file.attrs, self._datasets))
        if found != self.checksum:
            raise self._unreadable("checksum", ValueError("it is not that of the content"))
        if expected not in (None, found):
            raise UserError(
                f"{self.path}: not a shard of the corpus that was opened, which was prepared anew since; "
                "begin again on what is there now, or prepare the corpus as it was"
            )

    def frames(self, row: int, name: str) -> np.ndarray:
        """The speech frames [T, F] of the caption `name` in `row`; F is 40 where they are this program's MFCCs.

        Raises UserError that names the caption where they are not those that were written; `image` likewise.
        """
        frames = self._guarded("frames", lambda: self.stored_frames(row))
        if zlib.crc32(frames.data) != self.frame_crcs[row]:
            raise self._damaged(f"the frames of {name!r} are")
        return frames

    def image(self, row: int, name: str) -> bytes:
        """The encoded file of image `row`, which the caption `name` describes."""
        image = self._guarded("image_bytes", lambda: self.stored_image(row))
        if zlib.crc32(image.data) != self.image_crcs[row]:
            raise self._damaged(f"the bytes of the image of {name!r} are")
        return image.tobytes()

    def stored_frames(self, row: int) -> np.ndarray:
        """The frames as they are there, damaged or not; `stored_image` likewise."""
        return self._datasets["frames"][self.frame_offsets[row] : self.frame_offsets[row + 1]]

    def stored_image(self, row: int) -> np.ndarray:
        return self._datasets["image_bytes"][self.image_offsets[row] : self.image_offsets[row + 1]]

    def attribute(self, name: str) -> Any:
        """The value of an attribute, or None where the shard has none of that name."""
        try:
            value = self.file.attrs.get(name)
            return None if value is None else json.loads(value)
        except _DAMAGED as error:
            raise self._unreadable(name, error) from None

    def strings(self, name: str) -> list[str]:
        """The strings of a dataset: captions, digests, image_ids or dropped."""
        return self._guarded(name, lambda: list(json.loads(self.values(name).tobytes())))

    def values(self, name: str) -> np.ndarray:
        """A dataset as a whole."""
        return self._guarded(name, lambda: self._datasets[name][:])

    def close(self) -> None:
        self.file.close()

    def _dataset(self, name: str) -> h5py.Dataset:
        """Raises UserError for one that lies in pieces, or asks for more bytes than the file has."""
        dataset = self._guarded(name, lambda: held_dataset(self.file, name))
        if dataset.chunks is not None or dataset.nbytes > self.path.stat().st_size:
            raise self._unreadable(name, ValueError("it is not as it was written"))
        return dataset

    def _guarded(self, name: str, read: Callable[[], Value]) -> Value:
        try:
            return read()
        except _DAMAGED as error:
            raise self._unreadable(name, error) from None

    def _damaged(self, what: str) -> UserError:
        return UserError(f"{self.path}: {what} not those that were written; {CURE}")

    def _unreadable(self, name: str, error: BaseException) -> UserError:
        if isinstance(error, UserError):
            return error
        return UserError(f"{self.path}: {name} cannot be read ({' '.join(str(error).split())}); {CURE}")


def _crcs(rows: Iterable[Any]) -> np.ndarray:
    return np.fromiter((zlib.crc32(row) for row in rows), dtype=np.uint32)


def _offsets(lengths: Iterable[int]) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(np.fromiter(lengths, dtype=np.int64))]).astype(np.int64)


def _write_strings(shard: h5py.File, name: str, values: Iterable[str]) -> None:
    shard[name] = np.frombuffer(json.dumps(list(values)).encode(), dtype=np.uint8)
