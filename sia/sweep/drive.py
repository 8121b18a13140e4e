"""Drive a study from its submission to its table: the run folders, the scheduler, the mirror, what a person is told."""

import os
import shlex
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Literal

from rich.console import Console

from sia.cluster.launch import Launch, default_concurrency
from sia.cluster.profile import Cluster
from sia.command import confirmed
from sia.gallery.of_study import gallery_of_study, kept_gallery
from sia.operate.damage import how_unfinished, readable
from sia.operate.status import study_views
from sia.operate.track import keep_report, undriven
from sia.operate.watch import SweepDisplay, watch_studies
from sia.report.console import sweep_table
from sia.report.summary import summarise
from sia.report.write import PAGE, write_report
from sia.run.driver import OWN_JOB, Driver, another_driver, driver_status, driving
from sia.run.folder import RunFolder, again, refuse_rehearsal, report_folder, runs_of
from sia.run.state import look
from sia.sweep.chain import StageFailed, follow_run
from sia.sweep.corpora import is_to_be_made, provide_corpora
from sia.sweep.detach import detach
from sia.sweep.plan_table import count_of
from sia.sweep.preflight import MOST_JOBS, Preflight, count_of_jobs
from sia.sweep.request import remember, submitted_runs
from sia.sweep.take_up import take_up
from sia.trackers.tracker import MirrorThread, tracker_of

Scheduler = Literal["tune", "asha", "none"]
WATCH_SECONDS = 2.0


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


def submit_grid(preflight: Preflight, console: Console, yes: bool, watch: bool) -> int:
    """Begin it, or attach to whoever drives the study; the exit status. Raises UserError for what is refused.

    yes: more than MOST_JOBS jobs are begun without a question. watch: whoever drives the study is watched, not only
    told of.
    """
    request, grid = preflight.request, preflight.grid
    _raise_first(preflight)
    sweep = _sweep(preflight)
    if request.cluster != "debug" and (driver := another_driver(grid.study)) is not None:
        return _attach(sweep, driver, watch, console)
    own = OWN_JOB in os.environ  # a driver that is a job: whoever asked for it has answered
    count = preflight.num_jobs()
    if count > MOST_JOBS and not confirmed(yes or own, f"{count_of_jobs(count)} would begin: go on?"):
        return 1
    made = [point.experiment for point in grid.points if is_to_be_made(point.experiment.data)]
    if made:
        provide_corpora(made)
        _raise_first(preflight)
    if request.detach and not own:
        job = detach(grid, next(iter(preflight.launches.values())), request, preflight.dependency)
        print(f"job {job} drives study {grid.study}; watch it with python jobs/status.py {grid.study}")
        return 0
    print(*grid.told, sep="\n", end="\n" * bool(grid.told), flush=True)
    return submit_sweep(sweep, console)


def _raise_first(preflight: Preflight) -> None:
    for fault in preflight.faults():
        raise fault


def _sweep(preflight: Preflight) -> Sweep:
    request, grid, launches = preflight.request, preflight.grid, preflight.launches
    at_once = request.max_concurrent or default_concurrency(next(iter(launches.values())))

    def create() -> None:
        remember(request, grid)
        grid.create()

    runs = [point.run for point in grid.points]
    return Sweep(grid.study, runs, launches, request.scheduler, at_once, request.cluster != "auto", create)


def _attach(sweep: Sweep, driver: Driver, watch: bool, console: Console) -> int:
    known = submitted_runs(sweep.study)
    new = [run for run in sweep.runs if run.name not in known]
    if new:
        command = f"python jobs/submit.py {shlex.join(sys.argv[1:])}"
        print(f"{count_of(new)} of this grid not among its driver's; once that has ended: {command}", file=sys.stderr)
    if watch:
        return watch_driver(sweep, driver, console)
    print(f"{sweep.study}: driven by {driver.who} already; watch it with python jobs/status.py {sweep.study} --watch")
    return 1 if new else 0


def submit_sweep(sweep: Sweep, console: Console) -> int:
    """Drive the sweep and print its table, its report and its failures; the exit status."""
    if warning := tracker_of(sweep.study).warning():
        print(f"warning: {warning}", file=sys.stderr)
    try:
        errors = drive(sweep)
    except KeyboardInterrupt:
        back = again(sweep.study, sweep.runs[0].name)
        print(
            f"\nleft: jobs of study {sweep.study} that nobody cancelled go on; `{back}` attaches to them, "
            f"`python jobs/status.py {sweep.study} --watch` shows them",
            file=sys.stderr,
        )
        return 130
    return _tell_end(sweep, errors, console)


def watch_driver(sweep: Sweep, driver: Driver, console: Console) -> int:
    """Attach to whoever drives the study, until that ends; then tell what came of it; the exit status."""
    print(f"{sweep.study}: driven by {driver.who}; attached to it, a Ctrl-C leaves it as it is", file=sys.stderr)
    try:
        watch_studies(lambda: study_views([sweep.study]), lambda: _has_ended(sweep.study))
    except KeyboardInterrupt:
        who = driver_status(sweep.study).who or "nobody"
        print(f"\nleft: driven by {who}; `{again(sweep.study)}` attaches to it", file=sys.stderr)
        return 130
    made = [run for run in sweep.runs if run.config.exists()]
    errors = {run.name: "not begun" for run in sweep.runs if run not in made} | how_unfinished(made)
    if errors:
        print(f"{sweep.study}: its driver has ended; `{again(sweep.study)}` goes on with the rest", file=sys.stderr)
    return _tell_end(replace(sweep, runs=made), errors, console)


def _has_ended(study: str) -> bool:
    time.sleep(WATCH_SECONDS)
    return not driver_status(study).lives


def _tell_end(sweep: Sweep, errors: dict[str, str], console: Console) -> int:
    console.print(sweep_table([summarise(run) for run in readable(sweep.runs)[0]]))
    kept = kept_gallery(report_folder(sweep.study) / PAGE, runs_of(sweep.study))
    # Where the runs were trained here, it takes less than their last epoch did; a login node loads no torch for it.
    gallery = gallery_of_study(sweep.study) if not kept and sweep.cluster != "slurm" else kept
    print(f"report: {write_report(sweep.study, gallery=gallery)}")
    for line in keep_report(sweep.study):
        print(line, file=sys.stderr)
    if not gallery:
        print(f"        python jobs/report.py {sweep.study} adds what the best pair finds, to see and hear")
    print(f"runs:   python jobs/status.py {sweep.study}")
    tracker = tracker_of(sweep.study)
    lines = tracker.how_to_open(sweep.runs) or [f"nothing is mirrored yet; python jobs/track.py {sweep.study}"]
    print(f"{tracker.name}: " + f"\n{' ' * len(tracker.name)}  ".join(lines))
    for name, error in errors.items():
        print(f"error: {name}: {error}", file=sys.stderr)
    return 1 if errors else 0


def drive(sweep: Sweep) -> dict[str, str]:
    """Carry the sweep out; the errors of the runs that failed, by run name.

    Finished runs are left alone, running ones attached to, the rest submitted. Raises UserError where
    another driver has the study, or for a rehearsal. A KeyboardInterrupt passes through; the jobs go on.
    """
    refuse_rehearsal(sweep.study)
    with driving(sweep.study):
        sweep.create()
        if sweep.cluster != "debug":
            # Taken here, not in Tune's workers: all jobs of this drive run the same code.
            for launch in sweep.launches.values():
                _ = launch.code
        damaged = take_up(sweep.study, sweep.runs, sweep.cluster, sweep.by_name, asha=sweep.scheduler == "asha")
        whole = replace(sweep, runs=[run for run in sweep.runs if run.name not in damaged])
        with mirrored(whole.study, whole.runs, "the next submit mirrors it"), SweepDisplay(whole.runs):
            errors = schedule(whole)
        return {**damaged, **errors}


@contextmanager
def mirrored(study: str, runs: list[RunFolder], later: str) -> Iterator[None]:
    """The study's tracker mirrors the runs meanwhile; what it could not is told, with who makes up for it `later`."""
    tracker = tracker_of(study)
    thread = MirrorThread(tracker, lambda: runs)
    thread.start()
    try:
        yield
    except BaseException:
        # Who looks at an error, or presses Ctrl-C, does not want to wait for a store that is slow.
        thread.abandon()
        raise
    thread.stop(undriven(runs)[0])
    for line in tracker.told(later):
        print(line, file=sys.stderr)


def schedule(sweep: Sweep) -> dict[str, str]:
    """Bring every run to its end that is not there, the longest first; the errors of those that failed, by run name."""
    unfinished = sorted((run for run in sweep.runs if not look(run).is_over), key=_length, reverse=True)
    if not unfinished:
        return {}
    if sweep.scheduler == "none" or sweep.cluster == "debug":
        return _in_threads(sweep, unfinished)
    from sia.sweep.tune_driver import tune_runs

    return tune_runs(unfinished, sweep.launches, sweep.max_concurrent, asha=sweep.scheduler == "asha")


def _length(run: RunFolder) -> int:
    """About how long a run trains, beside others of its study."""
    experiment = run.experiment()
    epochs = sum(stage.epochs for stage in experiment.stages)
    return epochs * experiment.model.gru_layers * experiment.model.latent_size


def _in_threads(sweep: Sweep, runs: list[RunFolder]) -> dict[str, str]:
    """Without Tune: so many runs at once, in the order in which they are given."""
    errors: dict[str, str] = {}
    slots = threading.Semaphore(sweep.max_concurrent)

    def follow(run: RunFolder) -> None:
        try:
            with slots:
                follow_run(run, sweep.launches[run.name], lambda row: None)
        except StageFailed as error:
            errors[run.name] = str(error)
        except Exception as error:
            errors[run.name] = f"{type(error).__name__}: {error}; to go on: {again(run.study, run.name)}"

    if sweep.cluster == "debug":
        # In this thread, so that a debugger stops there and signals arrive.
        for run in runs:
            follow(run)
        return errors
    # Daemons: a Ctrl-C need not wait for jobs that go on by themselves.
    threads = [threading.Thread(target=follow, args=(run,), daemon=True) for run in runs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return errors
