"""Which runs of a study failed, were lost or cancelled, and how each is submitted again. It loads no torch."""

import sys

from sia.cluster.launch import Launch, former_launch
from sia.errors import UsageError, UserError
from sia.operate.cancel import BY
from sia.operate.damage import readable
from sia.run import records
from sia.run.driver import driver_status
from sia.run.folder import RunFolder, find_run, runs_of, runs_root
from sia.run.state import RunStatus, State, look


def retryable(study: str, only: list[str]) -> list[RunFolder]:
    """The runs of the study that failed, were lost or cancelled; of these, those that `only` names.

    Raises UserError for an unknown study, one that is driven, or a name in `only` of a run that needs no retry.
    """
    runs = runs_of(study)
    if not runs:
        raise UserError(f"{runs_root() / study}: no run there; `python jobs/status.py` lists the studies")
    driver = driver_status(study)
    if driver.lives:
        raise UserError(
            f"study {study} is driven by {driver.who}, which submits lost jobs again itself; wait for its end, or "
            f"`python jobs/cancel.py {study}` first"
        )
    chosen = [find_run(name, study) for name in only]
    runs, damaged = readable(runs)
    for line in damaged:
        print(line, file=sys.stderr)
    for run in chosen:
        if not _ended_badly(status := look(run)):
            raise UsageError(f"--only {run.name}: it is {status.state.value}; there is nothing to retry")
    return [run for run in chosen or runs if _ended_badly(look(run))]


def retry_launches(runs: list[RunFolder]) -> dict[str, Launch]:
    """How each run was submitted before, by its name; equal ones are one Launch, so that they run the same code."""
    distinct: list[Launch] = []
    launches = {}
    for run in runs:
        former = records.Launch.read(run.launch)
        launch = former_launch(run, former.cluster if former else "auto", None)
        if launch not in distinct:
            distinct.append(launch)
        launches[run.name] = distinct[distinct.index(launch)]
    return launches


def _ended_badly(status: RunStatus) -> bool:
    cancelled = status.state == State.STOPPED and status.stopped_by == BY
    return status.state in (State.FAILED, State.LOST) or cancelled
