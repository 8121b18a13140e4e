"""What a submitted job does: train one stage of a run; in the last one, measure the test split.

submitit pickles these objects on the submitting host, which need not have torch loaded: it is imported in the job.
"""

import os
import signal
import sys
import time
import traceback
from bdb import BdbQuit
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

from sia.checkpoint.chosen import plan_stage
from sia.cluster.task import JobFiles, Task
from sia.data.staging import staged
from sia.errors import UserError
from sia.imports import kept
from sia.run.folder import RunFolder, again
from sia.run.lock import HeartbeatLock, LockHeld
from sia.run.records import Failed, hand_on
from sia.training.preemption import PreemptionFlag

# What gloo, NCCL, torch's store and sia.distributed say of a rank that is gone.
LEFT_WITHOUT_A_WORD = (
    *("closed by peer", "connection reset", "connection was likely closed", "broken pipe"),
    *("remote process exited", "ncclremoteerror", "no sign of life"),
)


@dataclass(frozen=True)
class Place:
    """This process's place in its job."""

    rank: int = 0
    local_rank: int = 0
    world_size: int = 1
    job_id: str = ""
    life: str = "0"  # how often Slurm has restarted the job
    cluster: str = ""

    @classmethod
    def of_submitit(cls) -> "Place":
        from submitit import JobEnvironment

        env = JobEnvironment()
        life = os.environ.get("SLURM_RESTART_COUNT", "0")
        return cls(env.global_rank, env.local_rank, env.num_tasks, env.job_id, life, env.cluster)


@dataclass(frozen=True)
class Ended:
    """How a job's training of a stage ended: by which signal, and whether it has the next stage, too."""

    signal: int | None = None
    goes_on: bool = False


@dataclass(frozen=True)
class TrainStage(Task):
    """Train stage `number` of the run in `path`, with so many threads a rank.

    stage_corpus_to: where on the node's own disk the corpus is copied first; "" reads it where it lies.
    goes_on: whether the stages after it follow in the same job.
    """

    path: str
    number: int
    threads: int
    stage_corpus_to: str = ""
    goes_on: bool = False

    @property
    def run(self) -> RunFolder:
        return RunFolder(Path(self.path))

    @property
    def files(self) -> JobFiles:
        run = self.run
        return JobFiles(f"{run.study}/{run.name}/{self.number}", run.jobs, run.stage(self.number).job, run.stopped)

    def __call__(self) -> None:
        """Called by submitit in every rank of the job."""
        place = Place.of_submitit()
        if self.go_through(place) == signal.SIGUSR2 and place.rank == 0:
            from submitit import JobEnvironment

            JobEnvironment()._requeue(0)

    def go_through(self, place: Place) -> int | None:
        """Train the stage, and those after it where the job goes on; the signal that ended it, if one did."""
        task, flag = self, PreemptionFlag()
        while (ended := task.train(place, flag)).goes_on:
            task = replace(task, number=task.number + 1)
        return ended.signal

    def train(self, place: Place, flag: PreemptionFlag | None = None) -> Ended:
        """Train to the stage's end, or to a signal.

        A run that another job is training is left to it. An error is recorded in failed.json; a rank or a loader's
        worker that ended without a word is none: the job is lost, and its driver submits the stage again.
        """
        # Before torch is imported, which takes long on a busy file server: submitit ignores this signal. At the other
        # one it requeues a job that has not begun at once.
        flag = (flag or PreemptionFlag()).install(signal.SIGTERM)
        with kept():
            from sia.distributed import JobNotNeeded, call_off

        try:
            with self._lock(place) as lock:
                if place.rank == 0 and self.run.stopped.exists():
                    raise JobNotNeeded("the run was cancelled before this job began")
                return self._train(place, flag, lock.confirm if lock else lambda: None)
        except (LockHeld, JobNotNeeded) as reason:
            print(f"leaving: {reason}", file=sys.stderr)
            if place.rank == 0 and place.world_size > 1:
                call_off(self._meeting_place(place), str(reason))
            return Ended()
        except BdbQuit:
            # `q` in a debugger is a person's end, as a Ctrl-C is.
            raise KeyboardInterrupt from None
        except Exception as error:
            self._record_failure(place, error)
            if place.world_size == 1:
                raise
            traceback.print_exc()
            sys.stderr.flush()
            # The other ranks wait in a collective operation: an orderly end might wait for them.
            os._exit(1)

    def _corpus(self) -> Path:
        """Where this node reads the corpus."""
        run, folder = self.run, self.run.experiment().data.path
        return staged(folder, self.stage_corpus_to, again(run.study, run.name)) if self.stage_corpus_to else folder

    def _lock(self, place: Place) -> AbstractContextManager[HeartbeatLock | None]:
        if place.rank != 0:
            return nullcontext()
        who = {"job_id": place.job_id, "cluster": place.cluster, "stage": self.number}
        return HeartbeatLock(self.run.lock, on_lost=end_at_once, **who)

    def _meeting_place(self, place: Place) -> Path:
        return self.run.stage(self.number).rendezvous / f"{place.job_id}-{place.life}.json"

    def _record_failure(self, place: Place, error: Exception) -> None:
        path = self.run.stage(self.number).failed
        if place.world_size > 1 and is_lost_connection(error):
            # It follows from the error of the rank that left first, which that one records, unless it was killed.
            print("another rank ended without a word (killed, perhaps for memory?)", file=sys.stderr)
        elif is_lost_worker(error):
            print("a loader's worker was killed (for memory?)", file=sys.stderr)
        elif place.job_id == "" or (known := Failed.read(path)) is None or known.job_id != place.job_id:
            Failed(error=in_one_line(error), rank=place.rank, job_id=place.job_id, time=time.time()).write(path)

    def _train(self, place: Place, flag: PreemptionFlag, confirm: Callable[[], None]) -> Ended:
        with kept():
            import torch

            from sia.distributed import joined_ranks
            from sia.training.finish import finish_run
            from sia.training.fit import train_stage
            from sia.training.provenance import record_provenance

        run = self.run
        torch.set_num_threads(self.threads)
        flag.install()
        with joined_ranks(place.rank, place.world_size, place.local_rank, self._meeting_place(place)) as ranks:
            # Who waits for a slow copy in a collective operation gives up.
            corpus = ranks.each_in_its_time(self._corpus)
            if ranks.is_first:
                if self.goes_on:
                    confirm()
                    plan_stage(run, self.number)
                    self._has_next_too(place)
                run.stage(self.number).failed.unlink(missing_ok=True)  # of a former life of this job
                record_provenance(run, self.number, place.job_id, ranks)
            # One rank's word counts for all: they may not see the same files at the same time.
            done, last = ranks.first_says((run.stage(self.number).done.exists(), len(run.planned_stages())))
            finished = done or train_stage(run, self.number, ranks, flag, corpus, confirm)
            if finished and self.number == last:
                finish_run(run, ranks, corpus, confirm)
            received = int(ranks.largest(flag.received or 0))
        return Ended(None, self.goes_on and self.number < last) if finished else Ended(received)

    def _has_next_too(self, place: Place) -> None:
        """Write down this job as the next stage's, before this one is done: else its driver would submit another."""
        following = self.run.stage(self.number + 1)
        if following.number <= len(self.run.planned_stages()):
            hand_on(self.job_record, following.job, place.job_id)


def end_at_once() -> None:
    """Another job has taken the run over while this one was stalled: nothing more may be written."""
    print("the lock was lost to another job; ending without saving", file=sys.stderr, flush=True)
    os._exit(1)


def in_one_line(error: Exception) -> str:
    """What failed.json says of an error: a user's fault as it is, any other with its kind."""
    line = " ".join(str(error).split())
    return line if isinstance(error, UserError) else f"{type(error).__name__}: {line}"


def is_lost_connection(error: Exception) -> bool:
    """Whether a collective operation failed because another rank had left."""
    text = str(error).lower()
    return any(part in text for part in LEFT_WITHOUT_A_WORD)


def is_lost_worker(error: Exception) -> bool:
    """Whether torch tells of a loader's worker that was killed; a bus error is a full /dev/shm, as it says itself."""
    text = str(error)
    ended = "killed by signal" in text or "exited unexpectedly" in text
    return text.startswith("DataLoader worker") and ended and "Bus error" not in text
