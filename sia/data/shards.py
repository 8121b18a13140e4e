"""The HDF5 layout of a prepared corpus's shard: speech frames of captions, and the images they describe.

frames         float32 [F, 40]   the frames of all captions, one after the other; of imported features, another width
frame_offsets  int64   [N + 1]   caption n owns frames[frame_offsets[n] : frame_offsets[n + 1]]
captions       JSON    [N]       the caption's record, as JSON again
digests        JSON    [N]       hash of a caption's record, frames and image
image_bytes    uint8   [P]       PNG, JPEG or other image files, one after the other
image_offsets  int64   [M + 1]
image_ids      JSON    [M]
dropped        JSON    [K]       utterances left out of this shard, as JSON again

JSON is a list of strings, stored as its bytes: HDF5's own strings end the process that reads them where they are
damaged. The attribute `checksum` is the SHA-256 of all of these and of the other attributes.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from sia.atomic import write_atomically
from sia.data.hdf5_path import open_unlocked
from sia.data.manifest import Dropped, SpokenCaption
from sia.errors import UserError

LAYOUT_VERSION = 2
CHECKSUM = "checksum"
BLOCK_BYTES = 1 << 24


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
            shard["image_bytes"] = np.frombuffer(b"".join(self.images.values()), dtype=np.uint8)
            shard["image_offsets"] = _offsets(len(image) for image in self.images.values())
            _write_strings(shard, "image_ids", self.images)
            _write_strings(shard, "captions", (json.dumps(asdict(caption)) for caption in self.captions))
            _write_strings(shard, "digests", map(self._digest, self.captions, self.frames))
            _write_strings(shard, "dropped", (json.dumps(asdict(entry)) for entry in self.dropped))
            shard.attrs[CHECKSUM] = np.bytes_(checksum(shard))

    def _digest(self, caption: SpokenCaption, frames: np.ndarray) -> str:
        return caption_digest(caption, frames, self.images[caption.image_id])


def caption_digest(caption: SpokenCaption, frames: np.ndarray, image: bytes) -> str:
    """Sixteen hexadecimal digits of the hash of a caption's record, frames [T, F] of float32 and image file."""
    # Paths are left out: the same corpus may lie elsewhere.
    record = json.dumps([caption.utterance_id, caption.image_id, caption.split])
    return hashlib.sha256(record.encode() + frames.tobytes() + image).hexdigest()[:16]


def checksum(shard: h5py.File) -> str:
    """SHA-256 over a shard's attributes (but the checksum itself) and the names, shapes and bytes of its datasets."""
    content = hashlib.sha256()
    for name, value in sorted(shard.attrs.items()):
        if name != CHECKSUM:
            content.update(name.encode() + b"=" + np.asarray(value).tobytes() + b"\n")
    for name, dataset in sorted(shard.items()):
        content.update(f"{name} {dataset.shape}\n".encode())
        for block in _blocks(dataset):
            content.update(block)
    return content.hexdigest()


# What h5py, HDF5 and JSON raise for bytes that were changed.
_DAMAGED = (OSError, RuntimeError, KeyError, ValueError, TypeError, AttributeError, MemoryError)


class ShardReader:
    """Reads one shard; open it in the process that reads.

    Raises UserError for a file that is missing, damaged, or of another layout version.
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
        self.frame_offsets, self.image_offsets = self._dataset("frame_offsets"), self._dataset("image_offsets")

    def frames(self, row: int) -> np.ndarray:
        """The speech frames [T, F] of caption `row`; F is 40 where they are this program's MFCCs."""
        return self.file["frames"][self.frame_offsets[row] : self.frame_offsets[row + 1]]

    def image(self, row: int) -> bytes:
        """The encoded file of image `row`."""
        return self.file["image_bytes"][self.image_offsets[row] : self.image_offsets[row + 1]].tobytes()

    def attribute(self, name: str) -> Any:
        """The value of an attribute, or None where the shard has none of that name."""
        try:
            value = self.file.attrs.get(name)
            return None if value is None else json.loads(value)
        except _DAMAGED as error:
            raise self._unreadable(name, error) from None

    def strings(self, name: str) -> list[str]:
        """The strings of a dataset: captions, digests, image_ids or dropped."""
        try:
            return list(json.loads(self._dataset(name).tobytes()))
        except _DAMAGED as error:
            raise self._unreadable(name, error) from None

    def close(self) -> None:
        self.file.close()

    def _dataset(self, name: str) -> np.ndarray:
        try:
            return self.file[name][:]
        except _DAMAGED as error:
            raise self._unreadable(name, error) from None

    def _unreadable(self, name: str, error: BaseException) -> UserError:
        if isinstance(error, UserError):
            return error
        return UserError(
            f"{self.path}: {name} cannot be read ({' '.join(str(error).split())}); "
            "delete the shard and run `python jobs/prepare.py` for its corpus again"
        )


def stored_checksum(shard: h5py.File) -> str:
    """The checksum that was written; empty where there is none."""
    return bytes(shard.attrs.get(CHECKSUM, b"")).decode("ascii", "replace")


def _blocks(dataset: h5py.Dataset) -> Iterator[bytes]:
    """A dataset's bytes in order, a part of it at a time."""
    row_bytes = dataset.dtype.itemsize * int(np.prod(dataset.shape[1:], dtype=np.int64))
    step = max(1, BLOCK_BYTES // max(1, row_bytes))
    for start in range(0, len(dataset), step):
        yield dataset[start : start + step].tobytes()


def _offsets(lengths: Iterable[int]) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(np.fromiter(lengths, dtype=np.int64))]).astype(np.int64)


def _write_strings(shard: h5py.File, name: str, values: Iterable[str]) -> None:
    shard[name] = np.frombuffer(json.dumps(list(values)).encode(), dtype=np.uint8)
