"""The logs of a run's job, or of a study's detached driver, as they grow; over a requeue and the next stage's job."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from sia.errors import UserError
from sia.run.driver import driver_of, driver_status
from sia.run.folder import RunFolder, runs_root
from sia.run.queue import is_in_queue
from sia.run.records import Job
from sia.run.state import State, look

POLL_SECONDS = 0.5
AT_REST = (State.FINISHED, State.FAILED, State.STOPPED)


@dataclass(frozen=True)
class LogSource:
    """Whose logs: the job that writes them now, and whether no more can come."""

    job: Callable[[], Job | None]
    is_over: Callable[[], bool]


def logs_of_run(run: RunFolder, stage: int | None) -> LogSource:
    """A run's latest job, or that of one stage.

    Raises UserError for a stage that was never submitted, or a run without any job.
    """
    job = _job_of(run, stage)
    if job is None:
        submitted = [number for number in range(1, len(run.planned_stages()) + 1) if run.stage(number).job.exists()]
        which = f"stages {', '.join(map(str, submitted))} were submitted" if submitted else "it was never submitted"
        where = f"stage {stage} has no job" if stage is not None else "no job yet"
        raise UserError(f"{run.path}: {where}; {which}")
    if job.cluster == "debug":
        raise UserError(f"{run.path}: trained with --cluster debug; what it printed is in that terminal")

    def is_over() -> bool:
        state, done = look(run).state, stage is not None and run.stage(stage).done.exists()
        return done or state in AT_REST or (state == State.LOST and not driver_status(run.study).lives)

    return LogSource(lambda: _job_of(run, stage), is_over)


def logs_of_driver(study: str) -> LogSource:
    """A study's detached driver. Raises UserError for a study that was not driven by a job."""
    if driver_of(study) is None:
        raise UserError(
            f"{runs_root() / study}: no detached driver; what a driver prints is in its terminal, and "
            f"`python jobs/logs.py RUN` shows a run's log"
        )

    def is_over() -> bool:
        job = driver_of(study)
        return job is None or not is_in_queue(job)

    return LogSource(lambda: driver_of(study), is_over)


def log_files(job: Job, rank: int, stderr_only: bool) -> list[Path]:
    """The job's files of this rank, standard output first. Raises UserError for a rank that the job has not.

    A job that has not begun has no files yet: their names are returned all the same.
    """
    folder, job_id = Path(job.folder), job.job_id
    ranks = sorted(int(path.name.split("_")[-2]) for path in folder.glob(f"{job_id}_*_log.out"))
    if ranks and rank not in ranks:
        raise UserError(f"--rank {rank}: job {job_id} has ranks {', '.join(map(str, ranks))} (logs in {folder})")
    endings = ("err",) if stderr_only else ("out", "err")
    return [folder / f"{job_id}_{rank}_log.{ending}" for ending in endings]


@dataclass
class Follower:
    """Hands out what the logs have grown by, with the name of the file where it is another than before."""

    source: LogSource
    rank: int
    stderr_only: bool
    _read: dict[Path, int] = field(default_factory=dict)
    _last: Path | None = None

    def news(self) -> Iterator[str]:
        job = self.source.job()
        for path in log_files(job, self.rank, self.stderr_only) if job else []:
            text = self._grown(path)
            if text and path != self._last:
                self._last = path
                yield f"==> {path} <==\n"
            if text:
                yield text

    def follow(self, write: Callable[[str], object]) -> None:
        """Write all there is and all that comes, until no more can come."""
        while True:
            over = self.source.is_over()  # before the look: what was written until then is still shown
            for text in self.news():
                write(text)
            if over:
                return
            time.sleep(POLL_SECONDS)

    def _grown(self, path: Path) -> str:
        """What is new in a file; a file that has become shorter was written anew."""
        try:
            with open(path, "rb") as stream:
                size, read = path.stat().st_size, self._read.get(path, 0)
                stream.seek(read if read <= size else 0)
                content = stream.read()
                self._read[path] = stream.tell()
        except FileNotFoundError:
            return ""
        return content.decode(errors="replace")


def silence(job: Job, files: str) -> str:
    """What is told of a job whose files are empty."""
    if is_in_queue(job):
        return f"job {job.job_id} has written nothing yet to {files}"
    why = "it was cancelled before it began, or its node could not write there"
    return f"job {job.job_id} has written nothing to {files}: {why}"


def failed_rank(run: RunFolder, stage: int | None) -> int:
    """The rank whose error made the run fail in this stage (None: in any); 0 where it has not, or nobody knows."""
    status = look(run)
    is_meant = status.state == State.FAILED and stage in (None, status.stage)
    return status.rank if is_meant else 0


def _job_of(run: RunFolder, stage: int | None) -> Job | None:
    """The job record of the stage; of the latest one that has any where it is None."""
    numbers = [stage] if stage is not None else range(len(run.planned_stages()), 0, -1)
    return next((job for number in numbers if (job := Job.read(run.stage(number).job)) is not None), None)
