"""What is known of studies and their runs, as numbers; a thousand runs in about a second. It loads no torch."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from sia.atomic import read_json
from sia.clock import age_seconds
from sia.cluster.slurm_says import ACCOUNTING
from sia.operate.damage import FAULTS, damage
from sia.report.differences import differing
from sia.run import queue
from sia.run.cost import BANDWIDTH, captions_of, cost, rehearsed
from sia.run.cost import epochs as epochs_of
from sia.run.driver import Driver, driver_status
from sia.run.folder import RunFolder, again, is_rehearsal, runs_of, runs_root, studies, study_of
from sia.run.latest import measured
from sia.run.selection import selected_on, selecting_recalls
from sia.run.state import State, look
from sia.run.steps import StepRow, latest_step
from sia.run.time_left import Left, study_seconds

DAMAGED = "damaged"  # not a state of the run: its folder cannot be read
OVER = (State.FINISHED, State.STOPPED, State.FAILED, DAMAGED)
NOT_LEFT = (State.FINISHED, State.STOPPED, DAMAGED)
CANCELLED = "by cancel"
SLURM_IS_SILENT = "Slurm does not answer: what is pending or lost is not known"


@dataclass(frozen=True)
class RunView:
    """A run as status tells of it; recalls and shares are from 0 to 1, None where nothing is known."""

    run: str
    folder: str
    state: str
    stage: int = 0
    stages: int = 0
    epoch: int = 0
    epochs: int = 0
    share_of_epoch: float | None = None  # of the epoch that is under way
    step: dict[str, Any] | None = None  # the latest row of steps.jsonl on that epoch
    epoch_seconds: float | None = None  # of its latest epochs, else of its steps, else by its rehearsal
    seconds_left: float | None = None  # of an unfinished run, all stages; queues and starts of jobs are left out
    job_id: str = ""
    cluster: str = ""
    host: str = ""  # of the process that trains
    heartbeat_seconds: float | None = None  # since the job last said that it lives
    speech_to_image: float | None = None
    image_to_speech: float | None = None
    best: float | None = None
    measured_on: str = ""
    error: str = ""
    reason: str = ""  # what Slurm makes a pending job wait for
    settings: dict[str, Any] = field(default_factory=dict)  # those in which the study's runs differ, by dotted key

    @property
    def epochs_begun(self) -> int:
        """Those before the one that is under way; the last of them may not be saved yet, and tell no recall."""
        return self.step["epoch"] - 1 if self.step else self.epoch


@dataclass(frozen=True)
class StudyView:
    study: str
    driver: Driver | None  # None: this process is it
    runs: list[RunView]

    @cached_property
    def question(self) -> str:
        return study_of(self.study).question

    @property
    def under_way(self) -> bool:
        driven = self.driver is None or self.driver.lives
        return driven or any(run.state in (State.RUNNING, State.PENDING) for run in self.runs)

    @property
    def unfinished(self) -> list[RunView]:
        """Those with which a later submit would go on; what a scheduler gave up it leaves alone."""
        return [run for run in self.runs if run.state not in NOT_LEFT or run.error == CANCELLED]

    @property
    def seconds_left(self) -> float | None:
        """Of the runs at work, and of those that wait for them where anybody drives."""
        driven = self.driver is None or self.driver.lives
        return study_seconds([left for run in self.runs if (left := _left(run)).at_work or driven or not left.epochs])

    @property
    def driver_line(self) -> str:
        if self.driver is None:
            return ""
        if self.driver.lives:
            return f"{self.study}: driven by {self.driver.who}"
        if not self.runs:
            logs = f"python jobs/logs.py {self.study}"
            return f"{self.study}: its detached driver ended before it made a run; {logs} tells why"
        goes_on = self.unfinished and not is_rehearsal(self.study)
        cure = f"; to go on: {again(self.study, self.unfinished[0].run)}" if goes_on else ""
        return f"{self.study}: nobody drives it{cure}"

    def as_json(self) -> dict[str, Any]:
        """The study, who drives it, and its runs, in plain values."""
        driver = self.driver or Driver(self.study)
        process, job = driver.process, driver.job
        who = {"pid": process and process.pid, "host": process and process.host, "job_id": job and job.job_id}
        runs = [dict(vars(run)) for run in self.runs]
        told = {"question": self.question, "driver": {"lives": driver.lives, **who}}
        return {"study": self.study, **told, "seconds_left": self.seconds_left, "runs": runs}


def all_studies() -> list[str]:
    """Those with runs, and those whose detached driver has not made any yet."""
    return sorted({*studies(), *(path.parent.name for path in runs_root().glob("*/driver.json"))})


def study_views(names: Iterable[str]) -> list[StudyView]:
    """The studies that have runs, or have or had a driver; sacct is asked once about all jobs that were lost."""
    found = {study: _views(runs_of(study)) for study in names}
    why = _why_lost([one for views in found.values() for one in views])
    return [
        StudyView(study, driver, [_explained(one, why) for one in views])
        for study, views in found.items()
        if (driver := driver_status(study)).lives or views or (runs_root() / study / "driver.json").is_file()
    ]


def run_views(runs: Iterable[RunFolder]) -> list[RunView]:
    """Of runs of one study."""
    views = _views(runs)
    why = _why_lost(views)
    return [_explained(one, why) for one in views]


def slurm_is_silent() -> bool:
    """Whether Slurm was asked for its queue and did not answer."""
    return queue.QUEUE.jobs is None and queue.QUEUE.asked > float("-inf")


def _views(runs: Iterable[RunFolder]) -> list[RunView]:
    """The views of a study's runs, with the settings in which they differ."""
    seen = [(run, view(run)) for run in runs]
    settings = iter(differing([run.experiment() for run, one in seen if one.state != DAMAGED]))
    return [one if one.state == DAMAGED else replace(one, settings=next(settings)) for _, one in seen]


def view(run: RunFolder) -> RunView:
    """What is known of the run; of one whose folder cannot be read, why."""
    try:
        return _view(run)
    except FAULTS as error:
        return RunView(run.name, str(run.path), DAMAGED, error=damage(run, error))


def _view(run: RunFolder) -> RunView:
    status, found, planned = look(run), measured(run), run.planned_stages()
    last, epochs = found.last or {}, sum(stage.epochs for stage in planned)
    recalls = selecting_recalls(last) if last else (None, None)
    epoch = last.get("epoch", 0)
    step = latest_step(run, epoch) if status.state == State.RUNNING else None
    epoch_seconds = found.epoch_seconds or _expected_seconds(run, step, status.state)
    # Whose log tells of a failure that is not rank 0's.
    whose_log = f" (rank {status.rank}: python jobs/logs.py {run.name} --rank {status.rank})" if status.rank else ""
    seen = RunView(
        run=run.name,
        folder=str(run.path),
        state=status.state.value,
        stage=status.stage,
        stages=len(planned),
        epoch=epoch,
        epochs=epochs,
        share_of_epoch=step.share_of_epoch if step else None,
        step=step.model_dump() if step else None,
        epoch_seconds=epoch_seconds,
        job_id=status.job_id,
        cluster=status.cluster,
        host=status.host,
        heartbeat_seconds=_heartbeat(run.lock) if status.state == State.RUNNING else None,
        speech_to_image=recalls[0],
        image_to_speech=recalls[1],
        best=found.best,
        measured_on=selected_on(last) if last else run.experiment().training.select_on,
        error=(status.error or found.fault) + whose_log,
        reason=status.reason,
    )
    if is_rehearsal(run.study):
        return _rehearsed(run, seen)
    return seen if status.state in OVER else replace(seen, seconds_left=_left(seen).seconds)


def _rehearsed(run: RunFolder, seen: RunView) -> RunView:
    """A rehearsal's steps are those of one epoch, however long they take; in the end it tells what came of it."""
    told = read_json(run.rehearsal)
    if told is None:
        return replace(seen, epoch_seconds=None)
    what = f"batch {told['batch_size']}, {told['seconds_a_step']:.3g} s a step, {told['peak_memory_gb']:.1f} GB"
    return replace(seen, epoch=seen.epochs, reason=what)


def _expected_seconds(run: RunFolder, step: StepRow | None, state: State) -> float | None:
    """Of an epoch of a run that has not measured any: by the steps of the first one, else by its rehearsal."""
    experiment = run.experiment()
    if step is not None:
        return step.batches * experiment.training.batch_size / step.pairs_per_second
    pace = None if state in OVER else rehearsed(run.study, experiment, cores=1)
    captions = captions_of(experiment) if pace else None
    if pace is None or captions is None:
        return None
    return cost(experiment, captions, pace, pace.ranks, BANDWIDTH).hours * 3600 / epochs_of(experiment)


def _left(run: RunView) -> Left:
    unfinished = run.state not in OVER
    epochs = run.epochs - run.epochs_begun - (run.share_of_epoch or 0.0) if unfinished else 0.0
    return Left(max(0.0, epochs), run.epoch_seconds, run.state in (State.RUNNING, State.PENDING))


def _heartbeat(lock: Path) -> float | None:
    try:
        return round(max(0.0, age_seconds(lock)), 1)
    except OSError:
        return None


def _why_lost(views: Iterable[RunView]) -> dict[str, str]:
    """How the lost jobs of Slurm ended, as far as it is known, by their numbers."""
    lost = [one.job_id for one in views if one.state == State.LOST and one.cluster == "slurm"]
    return ACCOUNTING.why(lost)


def _explained(view: RunView, why: dict[str, str]) -> RunView:
    """With a word on why its job was lost."""
    if view.state != State.LOST:
        return view
    if view.cluster == "slurm" and view.job_id in why:
        return replace(view, error=f"job {view.job_id} ended: {why[view.job_id]}")
    told = f"python jobs/logs.py {view.run} shows its log"
    return replace(view, error=f"job {view.job_id} left without a word; {told}")
