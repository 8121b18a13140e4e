"""A trial's chain of stages: plan the next one, submit it, follow it, and so on until the run is finished.

A job goes on with the stages after its own by itself, unless its profile says `chain_stages: false`.
"""

import shutil
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from sia.checkpoint.chosen import choose_checkpoint, plan_stage, write_plan
from sia.clock import age_seconds
from sia.cluster.launch import Launch, record_launch
from sia.cluster.pack_job import ask_for_place, wait_for_place
from sia.cluster.slurm_says import passes
from sia.cluster.stage_job import Place, TrainStage
from sia.cluster.submit import submit
from sia.config import Stage, validate
from sia.errors import UserError
from sia.run.folder import RunFolder
from sia.run.mended import rows_of
from sia.run.records import Failed, Job
from sia.run.row_files import Row
from sia.run.state import RunStatus, State, look

POLL_SECONDS = 1.0
GLANCE_SECONDS = 0.1  # between two looks at whether there is anything to look at
GRACE_SECONDS = 20.0
MAX_LOSSES = 3
PATIENCE_SECONDS = 600.0
MOST_SECONDS_BETWEEN_SUBMISSIONS = 60.0


class StageFailed(UserError):
    """A stage's job ended with an error; its failed.json says which."""


def follow_run(run: RunFolder, launch: Launch, report: Callable[[Row], None]) -> None:
    """Bring the run to its end, whatever state it is found in; `report` hears each row of metrics once.

    Raises StageFailed with the error of a stage that failed, or had failed before.
    """
    relay, losses, watched = Relay(run, report), Losses(), Patient()
    while True:
        try:
            status = look(run)
            relay.new_rows()
        except OSError as error:
            watched.failed(error)
            continue
        watched.answered()
        if status.state == State.FINISHED:
            relay.new_rows()
            return
        if status.stopped_by:  # its job may not have left yet
            return
        if status.state == State.FAILED:
            raise StageFailed(f"{run.path}: stage {status.stage} failed: {status.error} (logs in {run.jobs})")
        try:
            if status.state in (State.NEW, State.WAITING) or losses.too_long(status, _progress(run, status, relay)):
                start_stage(run, status.stage, launch)
                continue
        except OSError as error:
            watched.failed(error)
        except UserError as error:
            failed = run.stage(status.stage).failed
            if not failed.exists():  # a job of `debug` has written it, with more detail
                Failed(error=str(error), time=time.time()).write(failed)
            continue
        _wait_for_news(run)


def _wait_for_news(run: RunFolder) -> None:
    """Until a file is written that a run's end or its next row comes with, but no longer than between two polls."""
    before, until = _written(run), time.monotonic() + POLL_SECONDS
    while time.monotonic() < until and _written(run) == before:
        time.sleep(GLANCE_SECONDS)


def _written(run: RunFolder) -> list[float]:
    return [path.stat().st_mtime if path.exists() else 0.0 for path in (run.metrics, run.finished)]


def begin(run: RunFolder, launch: Launch) -> None:
    """Submit the stage that comes next, without waiting for a place: whoever follows the run then finds its job.

    What fails is left to whoever follows it.
    """
    with suppress(OSError, UserError):
        status = look(run)
        if status.state in (State.NEW, State.WAITING):
            task = prepare_stage(run, status.stage, launch)
            ask = ask_for_place if launch.profile.runs_per_node > 1 else submit
            ask(task, launch.cluster, launch.profile, launch.code)


def start_stage(run: RunFolder, number: int, launch: Launch) -> None:
    """Plan the stage where that is not done yet, and submit it; on `debug`, train it here and now."""
    task = prepare_stage(run, number, launch)
    if launch.cluster == "debug":
        # Its job.json says that whatever died here before is not in any queue.
        here = Job(cluster="debug", job_id="debug", host=socket.gethostname(), time=time.time())
        here.write(run.stage(number).job)
        if task.train(Place()).signal is not None:
            raise KeyboardInterrupt
    else:
        _submit_when_it_is_taken(task, launch)


def prepare_stage(run: RunFolder, number: int, launch: Launch) -> TrainStage:
    plan_stage(run, number)
    # What an earlier job of the stage left: why it failed, where its ranks met.
    run.stage(number).failed.unlink(missing_ok=True)
    shutil.rmtree(run.stage(number).rendezvous, ignore_errors=True)
    profile = launch.profile
    # Before it is submitted: a cluster that refuses it leaves no job.json, and a retry asks for the same again.
    record_launch(run, launch)
    goes_on = profile.chain_stages and launch.cluster != "debug"
    return TrainStage(str(run.path), number, profile.cpus_per_task, profile.stage_corpus_to, goes_on)


def _submit_when_it_is_taken(task: TrainStage, launch: Launch) -> None:
    """A controller that is away for a while, or a queue that takes no more jobs of this user, fails no run."""
    pause = POLL_SECONDS
    while True:
        try:
            ask = wait_for_place if launch.profile.runs_per_node > 1 else submit
            return ask(task, launch.cluster, launch.profile, launch.code)
        except UserError as error:
            if not passes(str(error)):
                raise
            record_launch(task.run, launch, refused=f"{error}; it is tried again")
        time.sleep(pause)
        pause = min(2 * pause, MOST_SECONDS_BETWEEN_SUBMISSIONS)


def add_restart(run: RunFolder, wanted: str, epochs: int, lr_scale: float) -> int:
    """Add a warm restart by hand, from any checkpoint that the run kept; the new stage's number.

    Raises UserError where the run is not at its end, UsageError for a wrong number.
    """
    status = look(run)
    if status.state != State.FINISHED:
        raise UserError(f"{run.path}: it is {status.state.value}; bring it to its end first: python jobs/resume.py RUN")
    planned = run.planned_stages()
    values = {"epochs": epochs, "lr_scale": lr_scale, "schedule": "calr", "start_from": wanted}
    settings: Stage = validate(Stage, values, "jobs/resume.py")
    chosen = choose_checkpoint(run, wanted)
    # First, so that a death in between leaves a run whose last stage is measured again, not a stage nobody trains.
    run.finished.unlink()
    write_plan(run, len(planned) + 1, settings, planned, chosen)
    return len(planned) + 1


def forget_failure(run: RunFolder, before: float) -> None:
    """Make a run that failed before that time, by the clock of its files, one that can be gone on with."""
    status = look(run)
    failed = run.stage(status.stage).failed
    if status.state == State.FAILED and failed.stat().st_mtime < before:
        failed.unlink(missing_ok=True)
        run.stage(status.stage).job.unlink(missing_ok=True)


def forget_loss(run: RunFolder) -> None:
    """Make a run that was lost a while ago one whose stage waits: nobody need look for files that come late."""
    status = look(run)
    job = run.stage(status.stage).job
    signs = (job, run.lock, run.metrics, run.steps, run.stage(status.stage).partial)
    if status.state == State.LOST and min(age_seconds(sign) for sign in signs if sign.exists()) > GRACE_SECONDS:
        job.unlink(missing_ok=True)


class Relay:
    """Hands on each row of metrics.jsonl once."""

    def __init__(self, run: RunFolder, report: Callable[[Row], None]) -> None:
        self.run, self.report, self.count = run, report, 0

    def new_rows(self) -> None:
        for row in rows_of(self.run)[self.count :]:
            self.count += 1
            self.report(row)


def _progress(run: RunFolder, status: RunStatus, relay: Relay) -> tuple[int, int]:
    """Rows, and when the stage's last checkpoint was saved: a job that is preempted within an epoch adds no row."""
    stage = run.stage(status.stage)
    return relay.count, max(path.stat().st_mtime_ns if path.exists() else 0 for path in (stage.last, stage.partial))


class Patient:
    """A file server that is away for a moment ends nothing; one that stays away does."""

    def __init__(self) -> None:
        self.since: float | None = None

    def failed(self, error: OSError) -> None:
        """Wait a little. Raises the error where it has lasted too long."""
        self.since = self.since or time.monotonic()
        if time.monotonic() - self.since > PATIENCE_SECONDS:
            raise error
        time.sleep(POLL_SECONDS)

    def answered(self) -> None:
        self.since = None


class Losses:
    """How often, and since when, a stage's job is lost."""

    def __init__(self) -> None:
        self.since: float | None = None
        self.without_progress = 0
        self.progress: Any = None

    def too_long(self, status: RunStatus, progress: Any) -> bool:
        """Whether the stage should be submitted again. Raises UserError after too many losses without progress."""
        if status.state != State.LOST:
            self.since = None
            return False
        self.since = self.since or time.monotonic()
        if time.monotonic() - self.since < GRACE_SECONDS:
            return False
        self.without_progress = self.without_progress + 1 if progress == self.progress else 1
        self.since, self.progress = None, progress
        if self.without_progress > MAX_LOSSES:
            raise UserError(
                f"stage {status.stage} was lost {MAX_LOSSES + 1} times without progress (killed, perhaps for memory?); "
                "see its logs"
            )
        return True
