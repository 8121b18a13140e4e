"""A submission, from its checks to the driver that it becomes, or attaches to."""

import os
import shlex
import sys

from rich.console import Console

from sia.cluster.launch import default_concurrency
from sia.operate.confirm import confirmed
from sia.run.driver import OWN_JOB, Driver, another_driver
from sia.sweep.corpora import is_to_be_made, provide_corpora
from sia.sweep.detach import detach
from sia.sweep.drive import Sweep, submit_sweep, watch_driver
from sia.sweep.plan_table import count_of
from sia.sweep.preflight import MOST_JOBS, Preflight, count_of_jobs
from sia.sweep.request import remember, submitted_runs


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
