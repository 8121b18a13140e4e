"""Which runs use a prepared corpus. It loads no torch."""

from pathlib import Path

from sia.errors import UserError
from sia.run.folder import RunFolder, runs_of, runs_root
from sia.run.records import TrainedOn

NAMED = 4


def told_runs(folder: Path, identity: str) -> str:
    """ "3 runs under runs use it (size/DG1A64-..., ...)": for a fault."""
    using = [f"{run.study}/{run.name}" for run in runs_of() if _uses(run, folder, identity)]
    if not using:
        return f"no run under {runs_root()} uses it"
    named = ", ".join(using[:NAMED]) + (", ..." if len(using) > NAMED else "")
    return f"{len(using)} {'run uses' if len(using) == 1 else 'runs use'} it ({named})"


def _uses(run: RunFolder, folder: Path, identity: str) -> bool:
    """Whether a run was begun on this corpus or, where it has not begun, is to be; in doubt it does."""
    try:
        known = TrainedOn.read(run.corpus)
        if known is not None and (known.identity == identity or not known.folder):
            return True
        place = Path(known.folder) if known is not None else run.experiment().data.path
        return place.resolve() == folder.resolve()
    except UserError:
        return True
