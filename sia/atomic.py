"""Files that are either whole or absent, whoever is killed while they are written, and whose damage is noticed."""

import errno
import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO
from uuid import uuid4

from sia.errors import UserError

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
SEAL = "sha256"
CURE = "restore it, or delete it and run again the command that writes it"


def write_atomically(
    path: Path,
    write: Callable[[BinaryIO], object],
    mode: int = 0o666,
    confirm: Callable[[], None] = lambda: None,
) -> None:
    """Let `write` fill a file beside `path`, flush it to disk, and rename it onto `path`.

    A reader sees the old file or the new one, never a part. Parent folders are made. `mode` is the file's, less the
    process's umask. confirm: called right before the rename, which an exception of it prevents. Raises OSError that
    names `path` where there is no room for it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{uuid4().hex[:8]}.tmp")
    try:
        with open(unfinished, "w+b", opener=lambda name, flags: os.open(name, flags, mode)) as stream:
            write(stream)
            stream.flush()
            os.fsync(stream.fileno())
        confirm()
        os.replace(unfinished, path)
    except (OSError, RuntimeError) as error:
        # torch tells of a full disk by an error of its own, in whose context the system's is found.
        system = error if isinstance(error, OSError) else error.__context__
        if isinstance(system, OSError) and system.errno in NO_ROOM:
            raise OSError(system.errno, os.strerror(system.errno), str(path)) from None
        raise
    finally:
        unfinished.unlink(missing_ok=True)


def write_bytes(path: Path, content: bytes, mode: int = 0o666) -> None:
    write_atomically(path, lambda stream: stream.write(content), mode)


def write_text(path: Path, text: str, mode: int = 0o666) -> None:
    write_bytes(path, text.encode(), mode)


def write_json(path: Path, value: dict[str, Any], mode: int = 0o666) -> None:
    """Write a record with the checksum of its values as its last key, which `read_json` looks at and leaves out."""
    values = json.loads(json.dumps(value))  # as they are read back: names of keys are text
    write_text(path, json.dumps({**values, SEAL: _seal(values)}, indent=1, ensure_ascii=False) + "\n", mode)


def write_json_lines(path: Path, rows: list[dict[str, Any]]) -> None:
    write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def read_json(path: Path) -> dict[str, Any] | None:
    """The record's values, or None where there is no file. Raises UserError that names a file which is damaged."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: damaged ({' '.join(str(error).split())}); {CURE}") from None
    if not isinstance(values, dict) or values.pop(SEAL, None) != _seal(values):
        raise UserError(f"{path}: damaged (its values are not those that were written); {CURE}")
    return values


def _seal(values: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]
