"""Drive a study from its grid to its table: the run folders, the scheduler, the mirror and what the terminal shows."""

import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

from sia.cluster.launch import Launch
from sia.cluster.profile import Cluster
from sia.operate.cancel import BY
from sia.operate.damage import FAULTS, damage
from sia.operate.watch import SweepDisplay
from sia.run.driver import asked_at, driving
from sia.run.folder import RunFolder
from sia.run.mend import mend
from sia.run.records import Stopped
from sia.run.state import look
from sia.sweep.chain import StageFailed, follow_run, forget_failure
from sia.sweep.silent import take_over
from sia.trackers.mirror_thread import MirrorThread
from sia.trackers.tracker import tracker_of

Scheduler = Literal["tune", "asha", "none"]


@dataclass(frozen=True)
class Sweep:
    """A study and how it is carried out."""

    study: str
    runs: list[RunFolder]
    launches: dict[str, Launch]  # of each run, by its name
    scheduler: Scheduler = "tune"
    max_concurrent: int = 1
    by_name: bool = False  # the cluster was asked for by its name, not found
    create: Callable[[], object] = lambda: None  # makes the run folders, once the study is this driver's

    @property
    def cluster(self) -> Cluster:
        return next(iter(self.launches.values())).cluster


def drive(sweep: Sweep) -> dict[str, str]:
    """Carry the sweep out; the errors of the runs that failed, by run name.

    Finished runs are left alone, running ones attached to, the rest submitted. Raises UserError where
    another driver has the study. A KeyboardInterrupt passes through; the jobs go on.
    """
    with driving(sweep.study):
        sweep.create()
        if sweep.cluster != "debug":
            # Taken here, not in Tune's workers: all jobs of this drive run the same code.
            for launch in sweep.launches.values():
                _ = launch.code
        return _drive(sweep)


def _take_up(sweep: Sweep, run: RunFolder, asked: float) -> None:
    """Mend the run, and forget what ended it before this drive was asked for, so that it is gone on with.

    What asha gave up is taken up by whoever does not ask for asha. Raises UserError for damage that cannot be mended.
    """
    for line in mend(run):
        print(f"{run.name}: {line}", file=sys.stderr, flush=True)
    stopped = Stopped.read(run.stopped)
    taken_up = stopped is not None and (sweep.scheduler != "asha" or stopped.by == BY)
    if taken_up and run.stopped.stat().st_mtime < asked:
        run.stopped.unlink(missing_ok=True)


def _drive(sweep: Sweep) -> dict[str, str]:
    damaged = _taken_up(sweep)
    return {**damaged, **_drive_whole(replace(sweep, runs=[run for run in sweep.runs if run.name not in damaged]))}


def _drive_whole(sweep: Sweep) -> dict[str, str]:
    tracker = tracker_of(sweep.study)
    thread = MirrorThread(tracker, lambda: sweep.runs)
    thread.start()
    try:
        with SweepDisplay(sweep.runs):
            errors = _schedule(sweep)
    except KeyboardInterrupt:
        # Who presses Ctrl-C does not want to wait for a store that is slow.
        thread.abandon()
        raise
    thread.stop()
    for line in tracker.told("the next submit mirrors it"):
        print(line, file=sys.stderr)
    return errors


def _taken_up(sweep: Sweep) -> dict[str, str]:
    """The damage of each run that cannot be gone on with, by its name; the others are made ready."""
    asked, damaged = asked_at(sweep.study), {}
    for run in sweep.runs:
        try:
            _take_up(sweep, run, asked)
            look(run)
        except FAULTS as error:
            damaged[run.name] = damage(run, error)
    whole = [run for run in sweep.runs if run.name not in damaged]
    take_over(sweep.study, whole, sweep.cluster, sweep.by_name)
    for run in whole:
        forget_failure(run, asked)
    return damaged


def _schedule(sweep: Sweep) -> dict[str, str]:
    unfinished = [run for run in sweep.runs if not look(run).is_over]
    if not unfinished:
        return {}
    if sweep.scheduler == "none" or sweep.cluster == "debug":
        return _in_threads(sweep, unfinished)
    from sia.sweep.tune_driver import tune_runs

    return tune_runs(unfinished, sweep.launches, sweep.max_concurrent, asha=sweep.scheduler == "asha")


def _in_threads(sweep: Sweep, runs: list[RunFolder]) -> dict[str, str]:
    """Without Tune: so many runs at once, in the grid's order."""
    errors: dict[str, str] = {}

    def follow(run: RunFolder) -> None:
        try:
            follow_run(run, sweep.launches[run.name], lambda row: None)
        except StageFailed as error:
            errors[run.name] = str(error)
        except Exception as error:
            errors[run.name] = f"{type(error).__name__}: {error}; submit again to go on"

    if sweep.cluster == "debug":
        # In this thread, so that a debugger stops there and signals arrive.
        for run in runs:
            follow(run)
    else:
        _run_threads(follow, runs, sweep.max_concurrent)
    return errors


def _run_threads(follow: Callable[[RunFolder], None], runs: list[RunFolder], at_once: int) -> None:
    slots = threading.Semaphore(at_once)

    def in_slot(run: RunFolder) -> None:
        with slots:
            follow(run)

    # Daemons: a Ctrl-C need not wait for jobs that go on by themselves.
    threads = [threading.Thread(target=in_slot, args=(run,), daemon=True) for run in runs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
