"""One reader a corpus: from what lies on disk to captions. A new corpus is one module here and one line below."""

from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path

from sia.data.corpora.records import base, check_confined
from sia.data.manifest import Reading, validate_captions
from sia.errors import UsageError, UserError

# Modules are named, not imported: reading one corpus does not need the libraries of another.
READERS = {
    "places205": "sia.data.corpora.places205",
    "flickr8k": "sia.data.corpora.flickr8k",
    "spokencoco": "sia.data.corpora.spokencoco",
    "resdavenet_hdf5": "sia.data.corpora.resdavenet_hdf5",
    "speech2image_hdf5": "sia.data.corpora.speech2image_hdf5",
    "table": "sia.data.corpora.table",
    "scenes": "sia.data.corpora.scenes",
    "stamps": "sia.data.corpora.stamps",
}


# Whose paths are anybody's words: files outside the root are read where the user allows it.
CONFINED = ("table",)


def read(name: str, root: Path | str, allowed: Sequence[Path] = ()) -> Reading:
    """The captions of corpus `name` under `root`, and what was left out and why.

    allowed: further folders that the files of a table may lie in. Raises UsageError for an unknown corpus, UserError
    for a folder that is missing or holds something else, and for a file that a table names elsewhere.
    """
    if name not in READERS:
        raise UsageError(f"--corpus {name}: unknown corpus; use one of {', '.join(READERS)}")
    reader: Callable[[Path], Reading] = import_module(READERS[name]).read
    reading = reader(Path(root))
    if not reading.captions:
        left_out = f" ({len(reading.dropped)} left out: {reading.dropped[0].reason})" if reading.dropped else ""
        raise UserError(f"{root}: no caption of corpus {name!r} there{left_out}; give its root folder with --root")
    if name in CONFINED:
        check_confined(reading.captions, [base(Path(root)), *allowed])
    validate_captions(reading.captions, str(root), reading.held_out)
    return reading
