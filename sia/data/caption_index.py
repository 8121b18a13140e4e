"""The captions of a prepared corpus with their places in its shards: captions.jsonl, and an index of its lines.

captions.jsonl   every caption's record, a line each
captions.npy     INDEX [N]: where a caption's line ends, and the numbers of its record, to be mapped into memory

The index is compared with its checksum in corpus.json when it is mapped, a line with its own when it is read. So a
corpus of 400,000 captions is opened without reading it, and its copies in worker processes share its pages.
"""

import io
import json
import os
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from sia.data.manifest import SPLITS, record_of
from sia.errors import UserError

LINES, NUMBERS = "captions.jsonl", "captions.npy"
CURE = "run `python jobs/prepare.py` for its corpus again"
DECODER = json.JSONDecoder()


class Numbers(NamedTuple):
    """A caption in the index."""

    line_end: int  # in bytes of captions.jsonl
    line_crc: int  # CRC-32 of its bytes
    image: int  # number of the image, in the order in which images first appear
    shard: int
    row: int
    image_row: int
    num_frames: int
    split: int  # place in SPLITS


INDEX = np.dtype([("line_end", "<i8"), ("line_crc", "<u4"), *((name, "<i4") for name in Numbers._fields[2:])])
ID_BEGINS = len('{"utterance_id": ')  # in a line


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


def lines_of(captions: Iterable[PlacedCaption]) -> list[bytes]:
    """captions.jsonl."""
    return [json.dumps(record_of(caption), ensure_ascii=False).encode() + b"\n" for caption in captions]


def index_of(captions: Sequence[PlacedCaption], lines: Sequence[bytes]) -> bytes:
    """captions.npy, of captions with these lines."""
    numbers: dict[str, int] = {}
    index = np.zeros(len(captions), INDEX)
    index["line_end"] = np.cumsum([len(line) for line in lines])
    index["line_crc"] = [zlib.crc32(line) for line in lines]
    index["image"] = [numbers.setdefault(caption.image_id, len(numbers)) for caption in captions]
    index["split"] = [SPLITS.index(caption.split) for caption in captions]
    for name in ("shard", "row", "image_row", "num_frames"):
        index[name] = [getattr(caption, name) for caption in captions]
    file = io.BytesIO()
    np.save(file, index)
    return file.getvalue()


def index_checksum(file: Any) -> str:
    """That of the bytes of captions.npy: a CRC, of which 400,000 captions take 2 ms."""
    return f"{zlib.crc32(file):08x}"


class PlacedCaptions:
    """The captions of a prepared corpus, each built as it is asked for; their numbers are had without that.

    checksum: what corpus.json tells of the index; a copy for another process opens the files itself and compares it
    again. Raises UserError where the files are damaged, or do not fit each other.
    """

    def __init__(self, folder: Path, checksum: str) -> None:
        self.folder, self.checksum = folder, checksum
        size = (folder / LINES).stat().st_size if (folder / LINES).is_file() else -1
        if len(self) and self.numbers(-1).line_end != size:
            raise UserError(f"{folder / NUMBERS}: not the index of {LINES} beside it; {CURE}")

    def __len__(self) -> int:
        return len(self._index)

    def __iter__(self) -> Iterator[PlacedCaption]:
        return map(self.__getitem__, range(len(self)))

    def __getitem__(self, index: int) -> PlacedCaption:
        return PlacedCaption(**json.loads(self._line(index)))

    def utterance_id(self, index: int) -> str:
        """That of a caption, of whose line no more is parsed."""
        return str(DECODER.raw_decode(self._line(index).decode(), ID_BEGINS)[0])

    def numbers(self, index: int) -> Numbers:
        return Numbers(*self._index.item(index))

    def column(self, name: str) -> np.ndarray:
        """A field of INDEX for all captions [N]: image, shard, row, image_row, num_frames or split."""
        return np.ascontiguousarray(self._index[name])

    def _line(self, index: int) -> bytes:
        place = range(len(self))[index]
        start = self._index.item(place - 1)[0] if place else 0
        numbers = self.numbers(place)
        line = os.pread(self._lines.fileno(), numbers.line_end - start, start)
        if zlib.crc32(line) != numbers.line_crc:
            raise UserError(f"{self.folder / LINES}, line {place + 1}: not the one that was written; {CURE}")
        return line

    @cached_property
    def _index(self) -> np.ndarray:
        path = self.folder / NUMBERS
        try:
            if index_checksum(np.memmap(path, np.uint8, mode="r")) != self.checksum:
                raise ValueError("damaged, or of another corpus than corpus.json tells of")
            index = np.load(path, mmap_mode="r")
        except (OSError, ValueError) as error:
            raise UserError(f"{path}: unreadable index of captions ({error}); {CURE}") from None
        return np.asarray(index)  # a plain view: a memmap's own are slow to make

    @cached_property
    def _lines(self) -> BinaryIO:
        # Not mapped into memory as the index is: whoever reads all lines would hold them all.
        return open(self.folder / LINES, "rb", buffering=0)

    def __getstate__(self) -> dict[str, Any]:
        # A mapped array would be pickled as a whole copy.
        return {"folder": self.folder, "checksum": self.checksum}
