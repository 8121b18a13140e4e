"""What is wrong with a run folder that cannot be read, in one line. It loads no torch."""

import json
from collections.abc import Iterable
from pathlib import Path

from sia.errors import UserError
from sia.run.folder import RunFolder
from sia.run.metrics import read_rows
from sia.run.rows import rows_of
from sia.run.state import look

FAULTS = (UserError, OSError, KeyError, TypeError, ValueError, AttributeError)
KEYS = {  # what their readers rely on
    **{"job.json": {"cluster", "job_id"}, "failed.json": {"error"}, "stopped.json": {"by"}, "plan.json": {"stage"}},
    **{name: set() for name in ("finished.json", "launch.json")},
}


def damage(run: RunFolder, error: Exception) -> str:
    """The file that is damaged or cannot be read, and the cure."""
    if isinstance(error, UserError):
        cure = "" if str(run.config) not in str(error) else f"; restore it, or delete {run.path} and submit again"
        return f"{error}{cure}"
    if isinstance(error, OSError):
        return f"{error.filename or run.path}: {error.strerror or error}; make it readable"
    files = [path for name in KEYS for path in (*run.path.glob(name), *run.path.glob(f"stages/*/{name}"))]
    broken = next((path for path in files if not is_whole(path)), run.path)
    return f"{broken}: damaged ({type(error).__name__}: {error}); restore it, or delete it and submit again"


def readable(runs: Iterable[RunFolder]) -> tuple[list[RunFolder], list[str]]:
    """The runs that can be read, and a line on each of the others, which must not keep the study from anything."""
    whole, lines = [], []
    for run in runs:
        try:
            look(run), rows_of(run), read_rows(run.provenance)
        except FAULTS as error:
            lines.append(f"{run.study}/{run.name}: left alone: {damage(run, error)}")
        else:
            whole.append(run)
    return whole, lines


def is_whole(path: Path) -> bool:
    """Whether the JSON file holds an object with the keys that its readers rely on."""
    try:
        values = json.loads(path.read_text())
    except (OSError, ValueError):
        return False
    return isinstance(values, dict) and values.keys() >= KEYS[path.name]
