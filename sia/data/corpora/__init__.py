"""One reader a corpus: from what lies on disk to captions. A new corpus is one module here, and its name below."""

import os
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from importlib import import_module
from pathlib import Path

from sia.data import hdf5_path
from sia.data.manifest import Reading, SpokenCaption, validate_captions
from sia.errors import UsageError, UserError

NAMES = ("places205", "flickr8k", "spokencoco", "resdavenet_hdf5", "speech2image_hdf5", "table", "scenes", "stamps")
# Modules are named, not imported: reading one corpus does not need the libraries of another.
READERS = {name: f"sia.data.corpora.{name}" for name in NAMES}
# Whose paths are anybody's words: files outside the root are read where the user allows it.
CONFINED = ("table",)


def read(name: str, root: Path | str, allowed: Sequence[Path] = ()) -> Reading:
    """The captions of corpus `name` under `root`, and what was left out and why.

    allowed: further folders that the files of a table may lie in. Raises UsageError for an unknown corpus, UserError
    for a folder that is missing or holds something else, and for a file that a table names elsewhere.
    """
    root = Path(root)
    if name not in READERS:
        cure = f"use one of {', '.join(READERS)}; a table of your own is --root TABLE.csv, without --corpus"
        raise UsageError(f"--corpus {name}: unknown corpus; {cure}")
    reader: Callable[[Path], Reading] = import_module(READERS[name]).read
    reading = reader(root)
    if not reading.captions:
        left_out = f" ({len(reading.dropped)} left out: {reading.dropped[0].reason})" if reading.dropped else ""
        raise UserError(f"{root}: no caption of corpus {name!r} there{left_out}; give its root folder with --root")
    if name in CONFINED:
        _check_confined(reading.captions, [root.parent if root.is_file() else root, *allowed])
    validate_captions(reading.captions, str(root), reading.held_out)
    return reading


def _check_confined(captions: Iterable[SpokenCaption], folders: Sequence[Path]) -> None:
    """Raises UserError for a caption whose files lie, links followed, in none of the folders.

    A table that somebody else wrote could name any file that its reader may read.
    """
    within = tuple(os.path.join(os.path.realpath(folder), "") for folder in folders)
    real_folder = lru_cache(maxsize=None)(os.path.realpath)
    for caption in captions:
        for path in (caption.speech_path, caption.image_path):
            inside = hdf5_path.parse(path)
            folder, name = os.path.split(inside.file if inside else path)
            real = os.path.join(real_folder(folder), name)
            if os.path.islink(real):
                real = os.path.realpath(real)
            if name in ("", ".", "..") or not real.startswith(within):
                raise UserError(
                    f"{folders[0]}: utterance {caption.utterance_id!r} names {path}, which lies outside; "
                    f"if it is meant, allow its folder: --allow {os.path.dirname(real)}"
                )
