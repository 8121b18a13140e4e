"""What a submitted job does: train one stage of a run; in the last one, measure the test split.

submitit pickles these objects on the submitting host, which need not have torch loaded: it is imported in the job.
"""

import os
import signal
import sys
import time
import traceback
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sia.errors import UserError
from sia.lock import HeartbeatLock, LockHeld
from sia.run_folder import RunFolder, record


@dataclass(frozen=True)
class Place:
    """This process's place in its job."""

    rank: int = 0
    local_rank: int = 0
    world_size: int = 1
    job_id: str = ""
    life: str = "0"  # how often Slurm has restarted the job

    @classmethod
    def of_submitit(cls) -> "Place":
        from submitit import JobEnvironment

        env = JobEnvironment()
        life = os.environ.get("SLURM_RESTART_COUNT", "0")
        return cls(env.global_rank, env.local_rank, env.num_tasks, env.job_id, life)


@dataclass(frozen=True)
class TrainStage:
    """Train stage `number` of the run in `path`, with so many threads a rank."""

    path: str
    number: int
    threads: int

    @property
    def run(self) -> RunFolder:
        return RunFolder(Path(self.path))

    @property
    def name(self) -> str:
        return f"{self.run.study}/{self.run.name}/{self.number}"

    @property
    def jobs(self) -> Path:
        return self.run.jobs

    @property
    def job_record(self) -> Path:
        return self.run.stage(self.number).job

    def __call__(self) -> None:
        """Called by submitit in every rank of the job."""
        place = Place.of_submitit()
        if self.train(place) == signal.SIGUSR2 and place.rank == 0:
            from submitit import JobEnvironment

            JobEnvironment()._requeue(0)

    def train(self, place: Place) -> int | None:
        """Train to the stage's end, or to a signal, which is returned.

        A run that another job is training is left to it.
        """
        run = self.run
        try:
            with self._lock(run, place):
                return self._train_holding_the_lock(run, place)
        except LockHeld as error:
            print(f"leaving: {error}", file=sys.stderr)
            return None

    def _lock(self, run: RunFolder, place: Place) -> AbstractContextManager[Any]:
        if place.rank != 0:
            return nullcontext()
        return HeartbeatLock(run.lock, job_id=place.job_id, stage=self.number)

    def _train_holding_the_lock(self, run: RunFolder, place: Place) -> int | None:
        stage = run.stage(self.number)
        if place.rank == 0:
            stage.failed.unlink(missing_ok=True)
        try:
            return self._train(run, place)
        except Exception as error:
            if not stage.failed.exists():
                kind = "" if isinstance(error, UserError) else f"{type(error).__name__}: "
                line = " ".join(str(error).split())
                record(stage.failed, error=f"{kind}{line}", rank=place.rank, job_id=place.job_id, time=time.time())
            if place.world_size == 1:
                raise
            traceback.print_exc()
            sys.stderr.flush()
            # The other ranks wait in a collective operation: leaving the group in order would wait for them.
            os._exit(1)

    def _train(self, run: RunFolder, place: Place) -> int | None:
        import torch

        from sia.training.distributed import joined_ranks
        from sia.training.finish import finish_run
        from sia.training.fit import train_stage
        from sia.training.preemption import PreemptionFlag
        from sia.training.provenance import record_provenance

        torch.set_num_threads(self.threads)
        flag = PreemptionFlag().install()
        meeting_place = run.stage(self.number).rendezvous / f"{place.job_id}-{place.life}.json"
        with joined_ranks(place.rank, place.world_size, place.local_rank, meeting_place) as ranks:
            if ranks.is_first:
                record_provenance(run, self.number, place.job_id, ranks)
            done = run.stage(self.number).done
            finished = done.exists() or train_stage(run, self.number, ranks, flag)
            ranks.barrier()
            if finished and self.number == len(run.planned_stages()):
                finish_run(run, ranks)
            ranks.barrier()
        return None if finished else flag.received
