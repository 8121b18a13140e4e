"""What is wrong with a run folder that cannot be read, in one line. It loads no torch."""

from collections.abc import Iterable

from sia.errors import UserError
from sia.run.folder import RunFolder, cure_of_config
from sia.run.mended import rows_of
from sia.run.row_files import read_rows
from sia.run.state import look

FAULTS = (UserError, OSError)


def damage(run: RunFolder, error: UserError | OSError) -> str:
    """The file that is damaged or cannot be read, and the cure."""
    if isinstance(error, OSError):
        return f"{error.filename or run.path}: {error.strerror or error}; make it readable"
    has_cure = str(run.config) not in str(error) or "restore it" in str(error)
    return str(error) if has_cure else f"{error}; {cure_of_config(run.config)}"


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


def how_unfinished(runs: list[RunFolder]) -> dict[str, str]:
    """By its name, the error or the state of each run that has not come to its end."""
    found = {}
    for run in runs:
        try:
            status = look(run)
        except FAULTS as error:
            found[run.name] = damage(run, error)
        else:
            if not status.is_over:
                found[run.name] = status.error or status.state.value
    return found
