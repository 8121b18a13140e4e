"""What is wrong with a run folder that cannot be read, in one line. It loads no torch."""

from collections.abc import Iterable

from sia.errors import UserError
from sia.run.folder import RunFolder
from sia.run.metrics import read_rows
from sia.run.rows import rows_of
from sia.run.state import look

FAULTS = (UserError, OSError)


def damage(run: RunFolder, error: UserError | OSError) -> str:
    """The file that is damaged or cannot be read, and the cure."""
    if isinstance(error, OSError):
        return f"{error.filename or run.path}: {error.strerror or error}; make it readable"
    cure = "" if str(run.config) not in str(error) else f"; restore it, or delete {run.path} and submit again"
    return f"{error}{cure}"


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
