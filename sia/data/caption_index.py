"""The captions of a prepared corpus with their places in its shards: captions.jsonl, and an index of its lines.

captions.jsonl   every caption's record, a line each
captions.npy     INDEX [N]: where a caption's line ends, and the numbers of its record, to be mapped into memory

The index is compared with its checksum in corpus.json when it is mapped, a line with its own when it is read. So a
corpus of 400,000 captions is opened without reading it, and its copies in worker processes share its pages.
"""

import io
import json
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, overload

import numpy as np

from sia.atomic import write_atomically
from sia.data.manifest import SPLITS
from sia.errors import UserError

LINES, NUMBERS = "captions.jsonl", "captions.npy"
CURE = "run `python jobs/prepare.py` for its corpus again"

INDEX = np.dtype(
    [
        ("line_end", "<i8"),  # in bytes of captions.jsonl
        ("line_crc", "<u4"),  # CRC-32 of its bytes
        ("image", "<i4"),  # number of the image, in the order in which images first appear
        ("shard", "<i4"),
        ("row", "<i4"),
        ("image_row", "<i4"),
        ("num_frames", "<i4"),
        ("split", "<i4"),  # place in SPLITS
    ]
)


@dataclass(frozen=True, slots=True)
class PlacedCaption:
    """A caption and where its frames and image lie: rows of a shard."""

    utterance_id: str
    image_id: str
    split: str
    shard: int
    row: int
    image_row: int
    num_frames: int
    speaker: str = ""
    language: str = ""
    text: str = ""


class Line(NamedTuple):
    """What the index holds of a line of captions.jsonl."""

    num_bytes: int
    crc: int

    @classmethod
    def of(cls, line: bytes) -> "Line":
        return cls(len(line), zlib.crc32(line))


def write_placed(folder: Path, captions: Sequence[PlacedCaption]) -> str:
    """captions.jsonl and its index, each whole or absent; the index's checksum is returned."""
    lines = [json.dumps(asdict(caption), ensure_ascii=False).encode() + b"\n" for caption in captions]
    index = index_file(captions, [Line.of(line) for line in lines])
    write_atomically(folder / LINES, lambda stream: stream.writelines(lines))
    write_atomically(folder / NUMBERS, lambda stream: stream.write(index))
    return index_checksum(index)


def index_checksum(file: Any) -> str:
    """That of the bytes of captions.npy: a CRC, of which 400,000 captions take 2 ms."""
    return f"{zlib.crc32(file):08x}"


def index_file(captions: Sequence[PlacedCaption], lines: Sequence[Line]) -> bytes:
    """The bytes of captions.npy, of captions with these lines."""
    index = np.zeros(len(captions), INDEX)
    index["line_end"] = np.cumsum([line.num_bytes for line in lines])
    index["line_crc"] = [line.crc for line in lines]
    index["image"] = _numbered(caption.image_id for caption in captions)
    index["split"] = [SPLITS.index(caption.split) if caption.split in SPLITS else -1 for caption in captions]
    for name in ("shard", "row", "image_row", "num_frames"):
        index[name] = [getattr(caption, name) for caption in captions]
    file = io.BytesIO()
    np.save(file, index)
    return file.getvalue()


def read_lines(folder: Path) -> Iterator[tuple[PlacedCaption, Line]]:
    """The records of captions.jsonl and what the index should hold of their lines, without the index.

    Raises UserError that names a line that is no record.
    """
    path = folder / LINES
    if not path.is_file():
        raise UserError(f"{path}: no such file; {CURE}")
    with open(path, "rb") as lines:
        for number, line in enumerate(lines, start=1):
            try:
                yield PlacedCaption(**json.loads(line)), Line.of(line)
            except (ValueError, TypeError) as error:
                raise UserError(f"{path}, line {number}: not a caption ({error}); {CURE}") from None


class PlacedCaptions(Sequence[PlacedCaption]):
    """The captions of a prepared corpus, each built as it is asked for; `column` gives one number of all of them.

    checksum: what corpus.json tells of the index; a copy for another process opens the files itself and compares it
    again. Raises UserError where the files are damaged, or do not fit each other.
    """

    def __init__(self, folder: Path, checksum: str) -> None:
        self.folder, self.checksum = folder, checksum
        if len(self) and self._index["line_end"][-1] != (folder / LINES).stat().st_size:
            raise UserError(f"{folder / NUMBERS}: not the index of {LINES} beside it; {CURE}")

    def __len__(self) -> int:
        return len(self._index)

    @overload
    def __getitem__(self, index: int) -> PlacedCaption: ...
    @overload
    def __getitem__(self, index: slice) -> list[PlacedCaption]: ...
    def __getitem__(self, index: int | slice) -> PlacedCaption | list[PlacedCaption]:
        if isinstance(index, slice):
            return [self[one] for one in range(*index.indices(len(self)))]
        place = range(len(self))[index]
        start = self._index["line_end"][place - 1] if place else 0
        line = self._lines[start : self._index["line_end"][place]].tobytes()
        if zlib.crc32(line) != self._index["line_crc"][place]:
            raise UserError(f"{self.folder / LINES}, line {place + 1}: not the one that was written; {CURE}")
        return PlacedCaption(**json.loads(line))

    def column(self, name: str) -> np.ndarray:
        """A field of INDEX for all captions [N]: image, shard, row, image_row, num_frames or split."""
        return np.ascontiguousarray(self._index[name])

    @cached_property
    def _index(self) -> np.ndarray:
        try:
            found = index_checksum(np.memmap(self.folder / NUMBERS, np.uint8, mode="r"))
            if found != self.checksum:
                raise ValueError("damaged, or of another corpus than corpus.json tells of")
            index = np.load(self.folder / NUMBERS, mmap_mode="r")
        except (OSError, ValueError) as error:
            raise UserError(f"{self.folder / NUMBERS}: unreadable index of captions ({error}); {CURE}") from None
        if index.dtype != INDEX or index.ndim != 1:
            raise UserError(f"{self.folder / NUMBERS}: an index of another layout; {CURE}")
        return index

    @cached_property
    def _lines(self) -> np.ndarray:
        return np.memmap(self.folder / LINES, dtype=np.uint8, mode="r")

    def __getstate__(self) -> dict[str, Any]:
        # A mapped array would be pickled as a whole copy.
        return {"folder": self.folder, "checksum": self.checksum}


def _numbered(names: Iterable[str]) -> list[int]:
    """The number of each name; equal names have equal numbers, which count up as names first appear."""
    numbers: dict[str, int] = {}
    return [numbers.setdefault(name, len(numbers)) for name in names]
