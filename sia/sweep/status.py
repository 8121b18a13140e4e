"""What is known of studies and their runs, as numbers; a thousand runs in about a second. It loads no torch."""

import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sia.cluster.accounting import ACCOUNTING
from sia.cluster.driver_job import driver_of
from sia.cluster.state import RunStatus, State, look
from sia.run_folder import RunFolder, runs_of, runs_root, studies
from sia.sweep.driven import Driver, driver_status
from sia.sweep.measured import measured, share_of_epoch
from sia.training.selection import selected_on, selecting_recalls

NOT_LEFT = (State.FINISHED, State.STOPPED)
CANCELLED = "by cancel"


@dataclass(frozen=True)
class RunView:
    """A run as status tells of it; recalls and shares are from 0 to 1, None where nothing is known."""

    run: str
    folder: str
    state: str
    stage: int
    stages: int
    epoch: int
    epochs: int
    share_of_epoch: float | None  # of the epoch that is under way
    job_id: str
    cluster: str
    host: str  # of the process that trains
    heartbeat_seconds: float | None  # since the job last said that it lives
    speech_to_image: float | None
    image_to_speech: float | None
    best: float | None
    measured_on: str
    error: str
    reason: str  # what Slurm makes a pending job wait for


@dataclass(frozen=True)
class StudyView:
    study: str
    driver: Driver
    runs: list[RunView]

    @property
    def unfinished(self) -> bool:
        """Whether a later submit would go on with any of them; what a scheduler gave up it leaves alone."""
        return any(run.state not in NOT_LEFT or run.error == CANCELLED for run in self.runs)

    @property
    def driver_line(self) -> str:
        if self.driver.lives:
            return f"{self.study}: driven by {self.driver.who}"
        if not self.runs:
            logs = f"python jobs/logs.py {self.study}"
            return f"{self.study}: its detached driver ended before it made a run; {logs} tells why"
        cure = "nobody drives it; submit it again to go on" if self.unfinished else "nobody drives it"
        return f"{self.study}: {cure}"

    def as_json(self) -> dict[str, Any]:
        """The study, who drives it, and its runs, in plain values."""
        process, job = self.driver.process or {}, self.driver.job or {}
        driver = {
            **{"lives": self.driver.lives, "pid": process.get("pid"), "host": process.get("host")},
            "job_id": job.get("job_id"),
        }
        return {"study": self.study, "driver": driver, "runs": [dict(vars(run)) for run in self.runs]}


def all_studies() -> list[str]:
    """Those with runs, and those whose detached driver has not made any yet."""
    return sorted({*studies(), *(path.parent.name for path in runs_root().glob("*/driver.json"))})


def study_views(names: Iterable[str]) -> list[StudyView]:
    """The studies that have runs, or have or had a driver; sacct is asked once about all jobs that were lost."""
    found = {study: ([view(run) for run in runs_of(study)], driver_status(study)) for study in names}
    explained = iter(_explained([run for runs, _ in found.values() for run in runs]))
    return [
        StudyView(study, driver, [next(explained) for _ in runs])
        for study, (runs, driver) in found.items()
        if runs or driver.lives or driver_of(study) is not None
    ]


def run_views(runs: Iterable[RunFolder]) -> list[RunView]:
    return _explained([view(run) for run in runs])


def view(run: RunFolder) -> RunView:
    """Raises UserError for a config.yaml or metrics.jsonl that is broken."""
    status, found, planned = look(run), measured(run), run.planned_stages()
    last = found.last or {}
    recalls = selecting_recalls(last) if last else (None, None)
    epoch = last.get("epoch", 0)
    return RunView(
        run=run.name,
        folder=str(run.path),
        state=status.state.value,
        stage=status.stage,
        stages=len(planned),
        epoch=epoch,
        epochs=sum(stage.epochs for stage in planned),
        share_of_epoch=_share(run, status, epoch + 1),
        job_id=status.job_id,
        cluster=(status.job or {}).get("cluster", ""),
        host=(status.job or {}).get("host", "") if status.state == State.RUNNING else "",
        heartbeat_seconds=_heartbeat(run.lock) if status.state == State.RUNNING else None,
        speech_to_image=recalls[0],
        image_to_speech=recalls[1],
        best=found.best,
        measured_on=selected_on(last) if last else run.experiment().training.select_on,
        error=status.error,
        reason=status.reason,
    )


def _share(run: RunFolder, status: RunStatus, epoch: int) -> float | None:
    if status.state != State.RUNNING or not status.job_id:
        return None
    return share_of_epoch(run.jobs / f"{status.job_id}_0_log.out", epoch)


def _heartbeat(lock: Path) -> float | None:
    try:
        return round(max(0.0, time.time() - lock.stat().st_mtime), 1)
    except FileNotFoundError:
        return None


def _explained(views: list[RunView]) -> list[RunView]:
    """With a word on why each lost job ended."""
    jobs = [one.job_id for one in views if one.state == State.LOST and one.cluster == "slurm"]
    reasons = ACCOUNTING.why(jobs) if jobs else {}
    return [
        replace(one, error=_loss(one, reasons.get(one.job_id, ""))) if one.state == State.LOST else one for one in views
    ]


def _loss(lost: RunView, reason: str) -> str:
    if reason and lost.cluster == "slurm":
        return f"job {lost.job_id} ended: {reason}"
    return f"job {lost.job_id} left without a word; python jobs/logs.py {lost.run} shows its log"
