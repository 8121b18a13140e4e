"""The tracker brought up to date with the run folders of a study, without a driver; runs that died are closed."""

from dataclasses import dataclass
from pathlib import Path

from sia.errors import UserError
from sia.operate.damage import FAULTS, damage
from sia.run.driver import driver_status
from sia.run.folder import RunFolder, report_folder, runs_of, runs_root
from sia.run.state import State, look
from sia.trackers.tracker import Ending, StoreFault, Tracker, tracker_of

# What has no marker in the run folder, and only a driver would go on with.
UNDRIVEN = {
    State.LOST: Ending("FAILED", why="lost: its job has left the queue without a word"),
    State.WAITING: Ending("KILLED", why="nobody drives the study, and its next stage has no job"),
    State.NEW: Ending("KILLED", why="nobody drives the study, and it was never begun"),
}


@dataclass(frozen=True)
class Tracked:
    """What the tracker holds of a study now: so many runs and rows, and how many of the runs are closed unfinished.

    Of `num_new` it holds nothing, as they have not begun; `num_left_out` are not in it, `troubles` says why, and what
    else could not be told, in lines. So many runs were still open in it, whose folders are gone: `num_gone`.
    """

    study: str
    num_runs: int
    num_rows: int
    num_closed: int
    num_new: int = 0
    num_left_out: int = 0
    num_gone: int = 0
    troubles: tuple[str, ...] = ()


def track(study: str, uri: str | None = None) -> Tracked:
    """Mirror the study's runs and close those that nobody trains; a store that is empty or gone is filled anew.

    A run that a job trains or waits for stays RUNNING, and so does any unfinished run of a study with a living driver.
    """
    runs = runs_of(study)
    ended, unknown = _abandoned(study, runs)
    tracker = tracker_of(study, uri)
    done = tracker.sync(runs, ended, label=f"{study}: runs")
    held = [one for one in done.values() if one is not None]
    num_gone = 0 if tracker.trouble else tracker.close_gone()
    if held:
        _keep_report(tracker)
    troubles = [f"{name}: {fault}" for name, fault in tracker.left_out.items()]
    troubles += [line for path, line in unknown.items() if path.name not in tracker.left_out]
    troubles += [] if tracker.trouble is None else [tracker.trouble]
    return Tracked(
        study,
        num_runs=len(held),
        num_rows=sum(one.num_rows for one in held),
        num_closed=sum(one.status in ("FAILED", "KILLED") for one in held),
        num_new=len(done) - len(held),
        num_left_out=len(runs) - len(done),
        num_gone=num_gone,
        troubles=tuple(troubles),
    )


def keep_report(study: str) -> list[str]:
    """Hand the study's report to the tracker, where that holds any run of it; a line on what it does not take."""
    tracker = tracker_of(study)
    if not tracker.how_to_open(runs_of(study)):
        return []
    _keep_report(tracker)
    return tracker.told(f"python jobs/track.py {study} makes up for it")


def _keep_report(tracker: Tracker) -> None:
    if tracker.trouble is None and report_folder(tracker.study).is_dir():
        try:
            tracker.keep_report(report_folder(tracker.study))
        except (StoreFault, UserError, OSError) as fault:
            tracker.trouble = f"its report: {fault}"


def close(study: str, runs: list[RunFolder]) -> list[str]:
    """Tell the tracker how these runs ended, where it holds any and no driver does; a line on what it does not take."""
    tracker = tracker_of(study)
    if driver_status(study).lives or not tracker.how_to_open(runs):
        return []
    tracker.sync(runs)
    return tracker.told(f"python jobs/track.py {study} makes up for it")


def _abandoned(study: str, runs: list[RunFolder]) -> tuple[dict[Path, Ending], dict[Path, str]]:
    """How the runs ended that nobody trains any more; and a line on each whose state cannot be told."""
    driver = driver_status(study)
    if driver.damaged:
        return {}, {runs_root() / study: f"who drives the study cannot be told, no run is closed: {driver.damaged}"}
    if driver.lives:
        return {}, {}
    return undriven(runs)


def undriven(runs: list[RunFolder]) -> tuple[dict[Path, Ending], dict[Path, str]]:
    """How the runs ended that nobody trains, once nobody drives their study either; a line on each that is damaged."""
    ended, unknown = {}, {}
    for run in runs:
        try:
            if (state := look(run).state) in UNDRIVEN:
                ended[run.path] = UNDRIVEN[state]
        except FAULTS as fault:
            unknown[run.path] = f"{run.name}: {damage(run, fault)}"
    return ended, unknown
