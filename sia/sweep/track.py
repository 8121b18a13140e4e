"""MLflow brought up to date with the run folders of a study, without a driver; runs that died are closed."""

from dataclasses import dataclass
from pathlib import Path

from sia.atomic import read_json
from sia.cluster.state import State, look
from sia.run_folder import RunFolder, runs_of
from sia.sweep.damage import FAULTS
from sia.sweep.driven import driver_status
from sia.tracking.mlflow_mirror import MlflowMirror
from sia.tracking.mlflow_values import Ending, trial_ending

# What has no marker in the run folder, and only a driver would go on with.
UNDRIVEN = {
    State.LOST: Ending("FAILED", why="lost: its job has left the queue without a word"),
    State.WAITING: Ending("KILLED", why="nobody drives the study, and its next stage has no job"),
    State.NEW: Ending("KILLED", why="nobody drives the study, and it was never begun"),
}


@dataclass(frozen=True)
class Tracked:
    """What MLflow holds of a study: so many runs and rows, and how many of the runs are closed unfinished.

    `trouble` is what could not be mirrored, in one line, or None.
    """

    study: str
    num_runs: int
    num_rows: int
    num_closed: int
    trouble: str | None


def track(study: str, uri: str | None = None) -> Tracked:
    """Mirror the study's runs and close those that nobody trains; a database that is empty or gone is filled anew.

    A run that a job trains or waits for stays RUNNING, and so does any unfinished run of a study with a living driver.
    """
    runs = runs_of(study)
    ended = {} if driver_status(study).lives else _abandoned(runs)
    mirror = MlflowMirror(study, uri)
    mirror.sync(runs, ended)
    rows = sum((read_json(run.mirror) or {}).get("rows", 0) for run in runs)
    closed = [run for run in runs if run.path in ended or trial_ending(run).status in ("FAILED", "KILLED")]
    return Tracked(study, len(runs), rows, len(closed), mirror.trouble)


def _abandoned(runs: list[RunFolder]) -> dict[Path, Ending]:
    states = {run.path: _state(run) for run in runs}
    return {path: UNDRIVEN[state] for path, state in states.items() if state in UNDRIVEN}


def _state(run: RunFolder) -> State | None:
    try:
        return look(run).state
    except FAULTS:  # a damaged file, of which the mirror tells
        return None
