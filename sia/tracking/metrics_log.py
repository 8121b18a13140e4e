"""metrics.jsonl: one flat row a line; a line counts once its newline is on disk."""

import errno
import json
import os
from pathlib import Path
from typing import Any

from sia.errors import UserError

Row = dict[str, Any]


def read_rows(path: Path) -> list[Row]:
    """All whole rows; a last line without its newline is still being written and is left out.

    A missing file has no rows. Raises UserError that names the file and the line for a whole line that is no row.
    """
    return [_parse(line, path, number) for number, line in enumerate(_whole_lines(path), start=1)]


def append_row(path: Path, row: Row) -> None:
    """Add one row in a single write and flush it to disk, after cutting off a line that a killed job left torn."""
    path.parent.mkdir(parents=True, exist_ok=True)
    _cut_torn_line(path)
    with open(path, "ab", buffering=0) as stream:
        line = json.dumps(row, ensure_ascii=False).encode() + b"\n"
        if stream.write(line) != len(line):
            # A full disk may take a part, and say so by the count alone.
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        os.fsync(stream.fileno())


def _whole_lines(path: Path) -> list[bytes]:
    try:
        lines = path.read_bytes().splitlines(keepends=True)
    except FileNotFoundError:
        return []
    return lines if not lines or lines[-1].endswith(b"\n") else lines[:-1]


def _parse(line: bytes, path: Path, number: int) -> Row:
    try:
        row = json.loads(line)
    except ValueError:
        row = None
    if not isinstance(row, dict):
        raise UserError(f"{path}: line {number} is no JSON object; delete that line or restore the file")
    return row


def _cut_torn_line(path: Path) -> None:
    torn = path.stat().st_size - sum(map(len, _whole_lines(path))) if path.exists() else 0
    if torn:
        os.truncate(path, path.stat().st_size - torn)
