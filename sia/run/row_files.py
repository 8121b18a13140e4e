"""metrics.jsonl: one flat row a line; a line counts once its newline is on disk.

A line ends with `sum`, a hash of its row and of the line before: a line that is changed, lost or doubled is noticed.
"""

import errno
import hashlib
import json
import os
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from sia.atomic import write_atomically
from sia.errors import UserError
from sia.run.folder import again

Row = dict[str, Any]

SUM = b', "sum": "'
SUM_DIGITS = 12


class Rows(NamedTuple):
    """The rows before the first line that is damaged, the last one's sum, their bytes, and the fault ("": none)."""

    rows: list[Row]
    sum: bytes
    size: int
    fault: str


def read_rows(path: Path) -> list[Row]:
    """All whole rows; a last line without its newline is still being written and is left out.

    A missing file has no rows. Raises UserError that names the file and the line that is not as it was written.
    """
    found = read_sound_rows(path)
    if found.fault:
        raise UserError(found.fault)
    return found.rows


def read_sound_rows(path: Path) -> Rows:
    """As read_rows, but a damaged line ends the rows, and is told of."""
    rows: list[Row] = []
    last, size = b"", 0
    for number, line in enumerate(_whole_lines(path), start=1):
        row, expected = _parse_line(line, last)
        if row is None:
            return Rows(rows, last, size, _fault(path, number))
        rows.append(row)
        last, size = expected, size + len(line)
    return Rows(rows, last, size, "")


def _fault(path: Path, line: int) -> str:
    cure = again(path.parent.parent.name, path.parent.name)
    return (
        f"{path}: line {line} is not as it was written, or one is missing; what its checkpoints and records hold is "
        f"written anew by {cure}"
    )


def read_tail(path: Path, size: int) -> list[Row] | None:
    """The rows of the file's last `size` bytes; None where one of them is damaged."""
    with open(path, "rb") as stream:
        start = max(0, path.stat().st_size - size)
        stream.seek(start)
        lines = [] if start else [b""]
        lines += stream.read().splitlines(keepends=True)[bool(start) :]  # the first may have lost its beginning
    rows: list[Row] = []
    for before, line in pairwise(lines if not lines or lines[-1].endswith(b"\n") else lines[:-1]):
        row, _ = _parse_line(line, before.rpartition(SUM)[2][:SUM_DIGITS])
        if row is None:
            return None
        rows.append(row)
    return rows


def _parse_line(line: bytes, before: bytes) -> tuple[Row | None, bytes]:
    """A line's row, None where it is damaged or does not follow the line whose sum was `before`; and its own sum."""
    body, _, end = line.rpartition(SUM)
    expected = _sum(before, body)
    if end != expected + b'"}\n':
        return None, expected
    row = json.loads(body + b"}")
    return (row if isinstance(row, dict) else None), expected


class Appender:
    """Adds rows to a file that this process alone writes, without reading it each time."""

    def __init__(self, path: Path) -> None:
        """Raises UserError where the rows that are there are damaged."""
        self.path = path
        self._size, self._sum = 0, b""
        self._look()

    def append(self, row: Row, flush: bool = True) -> None:
        """Add one row in a single write; flush: to disk. Raises UserError as above, OSError where it is not taken."""
        if self._size_now() != self._size:
            self._look()
        line, own = _line(row, self._sum)
        with open(self.path, "ab", buffering=0) as stream:
            if stream.write(line) != len(line):
                # A full disk may take a part, and say so by the count alone.
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))
            if flush:
                os.fsync(stream.fileno())
        self._size, self._sum = self._size + len(line), own

    def _look(self) -> None:
        found = read_sound_rows(self.path)
        if found.fault:
            raise UserError(found.fault)
        self._size, self._sum = found.size, found.sum
        if self._size_now() > self._size:
            os.truncate(self.path, self._size)  # a line that a killed job left torn

    def _size_now(self) -> int:
        return self.path.stat().st_size if self.path.exists() else 0


def append_row(path: Path, row: Row) -> None:
    """Add one row in a single write and flush it to disk, after cutting off a line that a killed job left torn.

    Raises UserError where the rows that are there are damaged.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    Appender(path).append(row)


def write_rows(path: Path, rows: Iterable[Row]) -> None:
    """Make these the file's rows, whatever it held; it is whole or as it was before."""
    lines, last = [], b""
    for row in rows:
        line, last = _line(row, last)
        lines.append(line)
    write_atomically(path, lambda stream: stream.writelines(lines))


def _line(row: Row, before: bytes) -> tuple[bytes, bytes]:
    """The row's line after one whose sum was `before`, and its own sum."""
    body = json.dumps(row, ensure_ascii=False).encode()[:-1]
    own = _sum(before, body)
    return body + SUM + own + b'"}\n', own


def _sum(before: bytes, body: bytes) -> bytes:
    return hashlib.sha256(before + body).hexdigest()[:SUM_DIGITS].encode()


def _whole_lines(path: Path) -> list[bytes]:
    try:
        lines = path.read_bytes().splitlines(keepends=True)
    except FileNotFoundError:
        return []
    return lines if not lines or lines[-1].endswith(b"\n") else lines[:-1]
