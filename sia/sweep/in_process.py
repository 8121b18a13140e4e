"""One run in this process, under a debugger: no Tune, no cluster, no live table that would write over its prompt."""

import sys

from rich.box import SIMPLE
from rich.table import Table

from sia.cluster.launch import Launch
from sia.cluster.profile import Profile
from sia.config import Experiment
from sia.errors import UsageError, UserError
from sia.flatten import flatten, varying
from sia.run.driver import driving
from sia.run.folder import RunFolder, runs_root
from sia.run.state import RunStatus, State, look
from sia.sweep.chain import start_stage
from sia.sweep.grid import Grid, GridPoint
from sia.sweep.plan_table import stages_text
from sia.sweep.silent import take_over
from sia.trackers.mirror_thread import MirrorThread
from sia.trackers.tracker import tracker_of

LAUNCH = Launch("debug", Profile())


def train_here(run: RunFolder, experiment: Experiment, stage: int | None = None) -> None:
    """Bring the run to its end, or only through stage `stage`, in the calling thread; its tracker mirrors it meanwhile.

    An error of the training passes through with its traceback. So does a KeyboardInterrupt: what was not saved at the
    end of an epoch is lost, and the run can be gone on with. Raises UserError where a driver or a job has the run,
    UsageError for a stage that is not the next one.
    """
    _check_stage(run, stage)
    with driving(run.study):
        run.create(experiment)
        run.stopped.unlink(missing_ok=True)
        take_over(run.study, [run], LAUNCH.cluster, by_name=True)
        _mirrored(run, stage)


def _check_stage(run: RunFolder, wanted: int | None) -> None:
    status = look(run) if run.config.is_file() else RunStatus(State.NEW, 1)
    if wanted is not None and (status.state == State.FINISHED or status.stage != wanted):
        found = "the run is finished" if status.state == State.FINISHED else f"stage {status.stage} comes next"
        raise UsageError(f"--stage {wanted}: {found} in {run.path}; give the next stage, or leave --stage out")


def _mirrored(run: RunFolder, last_stage: int | None) -> None:
    tracker = tracker_of(run.study)
    thread = MirrorThread(tracker, lambda: [run])
    thread.start()
    try:
        _train(run, last_stage)
    except BaseException:
        # Who looks at an error, or presses Ctrl-C, does not want to wait for a store.
        thread.abandon()
        raise
    thread.stop()
    for line in tracker.told("python jobs/track.py mirrors it"):
        print(line, file=sys.stderr)


def _train(run: RunFolder, last_stage: int | None) -> None:
    while (status := look(run)).state != State.FINISHED:
        if status.state in (State.RUNNING, State.PENDING):
            raise UserError(f"{run.path}: job {status.job_id} has it ({status.state.value}); wait for it, or cancel it")
        try:
            start_stage(run, status.stage, LAUNCH)
        except KeyboardInterrupt:
            # Nothing is in any queue: whoever goes on with the run need not wait for this job to turn up.
            run.stage(status.stage).job.unlink(missing_ok=True)
            raise
        if status.stage == last_stage:
            return


def chosen_point(grid: Grid, number: int) -> GridPoint:
    """Grid point `number`, from 1. Raises UsageError where the grid has no such point."""
    if not 1 <= number <= len(grid.points):
        raise UsageError(
            f"--point {number}: the grid has points 1 to {len(grid.points)}; without --point it lists them"
        )
    return grid.points[number - 1]


def points_table(grid: Grid) -> Table:
    """A row a point of the grid: its number for --point, its run, what sets it apart from other points, its state."""
    table = Table(title=f"study {grid.study} (runs in {runs_root() / grid.study})", box=SIMPLE)
    for heading in ("point", "run", "stages: epochs, schedule, rate", "settings", "state"):
        table.add_column(heading, no_wrap=heading in ("point", "run", "state"))
    flat = [flatten(point.experiment.model_dump(mode="json", exclude={"stages", "runtime"})) for point in grid.points]
    keys = varying(flat)
    for number, (point, values) in enumerate(zip(grid.points, flat, strict=True), start=1):
        state = look(point.run).state.value if point.run.config.is_file() else "not made yet"
        settings = "\n".join(f"{key}={values[key]}" for key in keys if key in values)
        table.add_row(str(number), point.run.name, stages_text(point.experiment), settings, state)
    return table
