"""The HDF5 layout of a prepared corpus's shard: MFCC frames of captions, and the images they describe.

frames         float32 [F, 40]   the frames of all captions, one after the other
frame_offsets  int64   [N + 1]   caption n owns frames[frame_offsets[n] : frame_offsets[n + 1]]
captions       str     [N]       the caption's record as JSON
digests        str     [N]       hash of a caption's record, frames and image
image_bytes    uint8   [P]       PNG or JPEG files, one after the other
image_offsets  int64   [M + 1]
image_ids      str     [M]
dropped        str     [K]       utterances left out of this shard, as JSON
"""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from sia.atomic import write_atomically
from sia.data.manifest import Dropped, SpokenCaption
from sia.errors import UserError

LAYOUT_VERSION = 1


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
        with h5py.File(stream, "w") as shard:
            shard.attrs.update(
                {"layout_version": LAYOUT_VERSION, **{k: json.dumps(v) for k, v in self.attributes.items()}}
            )
            width = self.frames[0].shape[1] if self.frames else 0
            shard["frames"] = np.concatenate(self.frames) if self.frames else np.zeros((0, width), np.float32)
            shard["frame_offsets"] = _offsets(len(frames) for frames in self.frames)
            shard["image_bytes"] = np.frombuffer(b"".join(self.images.values()), dtype=np.uint8)
            shard["image_offsets"] = _offsets(len(image) for image in self.images.values())
            _write_strings(shard, "image_ids", self.images)
            _write_strings(shard, "captions", (json.dumps(asdict(caption)) for caption in self.captions))
            _write_strings(shard, "digests", map(self._digest, self.captions, self.frames))
            _write_strings(shard, "dropped", (json.dumps(asdict(entry)) for entry in self.dropped))

    def _digest(self, caption: SpokenCaption, frames: np.ndarray) -> str:
        # Paths are left out: the same corpus may lie elsewhere.
        record = json.dumps([caption.utterance_id, caption.image_id, caption.split])
        content = hashlib.sha256(record.encode() + frames.tobytes() + self.images[caption.image_id])
        return content.hexdigest()[:16]


class ShardReader:
    """Reads one shard; open it in the process that reads.

    Raises UserError for a file that is missing, damaged, or of another layout version.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self.file = h5py.File(path, "r")
        except OSError as error:
            problem = "missing" if not path.exists() else f"not a readable HDF5 file ({' '.join(str(error).split())})"
            raise UserError(f"{path}: shard is {problem}; run `python jobs/prepare.py` for its corpus again") from None
        version = self.file.attrs.get("layout_version")
        if version != LAYOUT_VERSION:
            raise UserError(
                f"{path}: shard of layout version {version}, this program reads {LAYOUT_VERSION}; "
                "delete it and run `python jobs/prepare.py` for its corpus again"
            )
        self.frame_offsets = self.file["frame_offsets"][:]
        self.image_offsets = self.file["image_offsets"][:]

    def frames(self, row: int) -> np.ndarray:
        """The MFCC frames [T, 40] of caption `row`."""
        return self.file["frames"][self.frame_offsets[row] : self.frame_offsets[row + 1]]

    def image(self, row: int) -> bytes:
        """The encoded file of image `row`."""
        return self.file["image_bytes"][self.image_offsets[row] : self.image_offsets[row + 1]].tobytes()

    def attribute(self, name: str) -> Any:
        value = self.file.attrs.get(name)
        return None if value is None else json.loads(value)

    def strings(self, name: str) -> list[str]:
        return [value.decode() for value in self.file[name][:]]

    def close(self) -> None:
        self.file.close()


def _offsets(lengths: Iterable[int]) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(np.fromiter(lengths, dtype=np.int64))]).astype(np.int64)


def _write_strings(shard: h5py.File, name: str, values: Iterable[str]) -> None:
    encoded = np.array([value.encode() for value in values], dtype=object)
    shard.create_dataset(name, data=encoded, dtype=h5py.string_dtype(), shape=encoded.shape)
