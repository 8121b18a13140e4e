"""A run in one of a pack's places: the processes that train it. It loads no torch before it is asked to."""

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass
from multiprocessing.context import ForkProcess
from pathlib import Path

from sia import gate
from sia.cluster.stage_job import Place, TrainStage
from sia.errors import UserError
from sia.imports import kept
from sia.orphans import end_with
from sia.run.records import Job
from sia.run.state import current_stage
from sia.training.preemption import SIGNALS

SECONDS_TO_SAVE = 60.0  # for a run that was cancelled
PLACE, GPUS = "SIA_PLACE", "SIA_GPUS"
ENTRY = "import sys; sys.path.insert(0, sys.argv[1]); from sia.cluster.pack_step import train; train(*sys.argv[2:])"


def preload() -> None:
    """Load what a rank needs for its first step, for those that are forked from this process."""
    with kept():
        import torchvision.models  # noqa: F401

        import sia.training.finish
        import sia.training.fit
        import sia.training.provenance  # noqa: F401


class Forked(ForkProcess):
    """A rank that goes on from what this process has loaded, with logs and variables of its own."""

    def __init__(self, log: str, variables: Mapping[str, str], *given: str) -> None:
        super().__init__()
        self.log, self.variables, self.given = log, variables, given

    def run(self) -> None:
        """Called in the new process, which hears no signal yet."""
        for number, ending in ((1, "out"), (2, "err")):
            with open(f"{self.log}.{ending}", "ab") as stream:
                os.dup2(stream.fileno(), number)
        os.environ.update(self.variables)
        for heard in (*SIGNALS, signal.SIGCONT):
            signal.signal(heard, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        train(*self.given)

    def poll(self) -> int | None:
        return self.exitcode

    def send_signal(self, number: int) -> None:
        if self.pid is not None and self.exitcode is None:
            os.kill(self.pid, number)


@dataclass
class Step:
    """The run, the ticket that it came with, and its processes."""

    task: TrainStage
    ticket: Path
    processes: "list[subprocess.Popen[bytes] | Forked]"
    told: float | None = None  # when it was told to end

    def tell(self, number: int) -> None:
        self.told = self.told or time.monotonic()
        for process in self.processes:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(number)

    def is_over(self) -> bool:
        """Whether all its processes have ended; one that failed takes the others with it."""
        ended = [process.poll() for process in self.processes]
        if any(status not in (None, 0) for status in ended):
            self.tell(signal.SIGKILL)
        return None not in ended

    def end_if_stopped(self) -> None:
        if not self.task.run.stopped.exists():
            return
        if self.told is None:
            self.tell(signal.SIGTERM)
        elif time.monotonic() - self.told > SECONDS_TO_SAVE:
            self.tell(signal.SIGKILL)

    def settle(self) -> None:
        """Its place is empty: unless the run is finished, its driver finds the stage failed, stopped or lost."""
        run = self.task.run
        with contextlib.suppress(UserError):  # whoever looks at a run that is damaged is told
            record = run.stage(current_stage(run)).job
            if not run.finished.exists() and (job := Job.read(record)) and job.shared:
                job.model_copy(update={"left": time.time()}).write(record)
        self.ticket.unlink(missing_ok=True)


def train(task: str, job_id: str, life: str) -> None:
    """A rank of a run that has a place in a pack."""
    gate.close_umask()
    if GPUS in os.environ:
        os.environ["CUDA_VISIBLE_DEVICES"] = os.environ[GPUS]
    if local := os.environ.get(PLACE):
        end_with(os.getppid())  # Slurm ends a step with its job
    names = ("SLURM_PROCID", "SLURM_LOCALID", "SLURM_NTASKS")
    rank, local_rank, ranks = map(int, local.split() if local else (os.environ[name] for name in names))
    place = Place(rank, local_rank, ranks, job_id, life, "local" if local else "slurm")
    TrainStage(**json.loads(task)).go_through(place)
