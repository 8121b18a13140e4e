"""A rehearsal: two steps of a real, full-size pair, with the largest batch that fits, before days are spent on it."""

import math
import os
import resource
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING

from sia.atomic import read_json, write_json
from sia.cluster.stage_job import Place, end_at_once, in_one_line
from sia.cluster.task import JobFiles, Task
from sia.config import Experiment
from sia.data.prepared_corpus import PreparedCorpus
from sia.errors import UserError
from sia.run.folder import RunFolder
from sia.run.lock import HeartbeatLock
from sia.run.records import Failed
from sia.run.steps import StepRow, StepWriter

if TYPE_CHECKING:
    from sia.distributed import Ranks

STEPS = 2  # that are timed, after one to warm up
SHARE_OF_MEMORY = 0.8
PROBES = (1, 2)  # captions a rank, from whose peaks the memory a caption needs follows


@dataclass(frozen=True)
class Rehearsal:
    """What was measured; memory is the largest of any rank."""

    pair: str
    batch_size: int
    peak_memory_gb: float
    seconds_a_step: float
    loss: float
    device: str
    world_size: int


@dataclass(frozen=True)
class Rehearse(Task):
    """Rehearse the pair of the run in `path`, with so many threads a rank; its result is the run's rehearsal.json."""

    path: str
    threads: int

    @property
    def run(self) -> RunFolder:
        return RunFolder(Path(self.path))

    @property
    def files(self) -> JobFiles:
        run = self.run
        return JobFiles(f"{run.study}/{run.name}", run.jobs, run.stage(1).job, run.stopped)

    def result(self) -> Rehearsal | None:
        found = read_json(self.run.rehearsal)
        return None if found is None else Rehearsal(**found)

    def __call__(self) -> None:
        """Called by submitit in every rank of the job."""
        # submitit ignores it; there is nothing to save.
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        self.rehearse(Place.of_submitit())

    def rehearse(self, place: Place) -> None:
        """Leaves without a word where it was given up before it began. An error is recorded by the first such rank."""
        if self.run.stopped.exists():
            return
        try:
            with first_holds(self.run, place):
                self._rehearse(place)
        except Exception as error:
            if Failed.read(self.run.stage(1).failed) is None:
                failed = Failed(error=in_one_line(error), rank=place.rank, job_id=place.job_id, time=time.time())
                failed.write(self.run.stage(1).failed)
            raise

    def _rehearse(self, place: Place) -> None:
        import torch

        from sia.distributed import joined_ranks

        torch.set_num_threads(self.threads)
        meeting_place = self.run.stage(1).rendezvous / f"{place.job_id}-{place.life}.json"
        experiment = self.run.experiment()
        with joined_ranks(place.rank, place.world_size, place.local_rank, meeting_place) as ranks:
            writer = StepWriter(self.run.steps, 0) if ranks.is_first else None
            tell = writer.add if writer else None
            result = measure(experiment, PreparedCorpus.open(experiment.data.path), ranks, tell=tell)
            if ranks.is_first:
                write_json(self.run.rehearsal, asdict(result))


@contextmanager
def first_holds(run: RunFolder, place: Place) -> Iterator[None]:
    """The first rank of a job holds the run's lock meanwhile; told to end, it lets it go and ends at once."""
    if place.rank != 0 or not place.job_id:
        yield
        return
    # Before there are threads, which have it so, too: one thread alone hears it, even while torch is at work.
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
    with HeartbeatLock(run.lock, end_at_once, job_id=place.job_id, cluster=place.cluster, stage=1) as lock:
        threading.Thread(target=_leave_when_told, args=(lock,), daemon=True).start()
        yield


def _leave_when_told(lock: HeartbeatLock) -> None:
    number = signal.sigwait([signal.SIGTERM])
    lock.release()
    os._exit(128 + number)


def largest_batch(peaks: tuple[float, float], memory: float, wanted: int) -> int:
    """The largest batch a rank, up to `wanted`, whose peak stays within `memory`.

    The peaks are those of PROBES captions, in any one unit; memory is taken to grow linearly with the batch.
    """
    first, second = PROBES
    a_caption = max((peaks[1] - peaks[0]) / (second - first), 1e-9)
    base = peaks[0] - first * a_caption
    return max(1, min(wanted, int((memory - base) / a_caption)))


def measure(
    experiment: Experiment,
    corpus: PreparedCorpus,
    ranks: "Ranks",
    steps: int = STEPS,
    tell: Callable[[StepRow], None] | None = None,
) -> Rehearsal:
    """So many steps of the largest batch that fits, on a corpus of any captions. tell: hears of each step."""
    from sia.training.finish import device_name
    from sia.training.meter import peak_memory_gb

    batch = min(experiment.training.batch_size, len(corpus.split("train"))) // ranks.world_size
    on_gpu = ranks.device.type == "cuda"
    run = Steps(experiment, corpus, ranks, steps + 1 + (0 if on_gpu else 2 * len(PROBES)), tell)
    if on_gpu:
        batch, seconds, loss = _halve_until_it_fits(run, batch, steps)
    else:
        peaks = []
        for count in PROBES:
            run.of(count, steps=1)
            peaks.append(peak_memory_gb(ranks))
        batch = largest_batch((peaks[0], peaks[1]), SHARE_OF_MEMORY * _memory_gb() / ranks.world_size, batch)
        batch = round(-ranks.largest(-batch))
        seconds, loss = run.of(batch, steps)
    return Rehearsal(
        pair=experiment.model.pair_name,
        batch_size=batch * ranks.world_size,
        peak_memory_gb=ranks.largest(peak_memory_gb(ranks)),
        seconds_a_step=seconds,
        loss=loss,
        device=device_name(ranks.device),
        world_size=ranks.world_size,
    )


@dataclass
class Steps:
    """Takes steps of batches of several sizes; `planned` of them, if the first sizes fit."""

    experiment: Experiment
    corpus: PreparedCorpus
    ranks: "Ranks"
    planned: int
    tell: Callable[[StepRow], None] | None
    taken: int = 0

    def of(self, batch: int, steps: int) -> tuple[float, float]:
        """Seconds a step and the last loss of so many steps of `batch` captions a rank, after one to warm up."""
        from sia.data.loader import collate
        from sia.training.trainer import build_trainer

        training = self.experiment.training.model_copy(update={"batch_size": batch * self.ranks.world_size})
        sized = self.experiment.model_copy(update={"training": training})
        trainer = build_trainer(sized, sized.stages[0], self.corpus, self.ranks)
        batches = cycle(trainer.state.sampler)  # an epoch may be one batch

        def step() -> float:
            began = time.monotonic()
            loss = trainer.step(collate([trainer.dataset[place] for place in next(batches)])).item()
            trainer.state.progress.step += 1
            self._say(training.batch_size / (time.monotonic() - began), loss)
            return loss

        step()
        self.ranks.barrier()
        began = time.monotonic()
        for _ in range(steps):
            last = step()
        self.ranks.barrier()
        seconds = (time.monotonic() - began) / steps
        if not math.isfinite(last):
            raise UserError(f"loss is {last}; lower optimizer.learning_rate")
        return seconds, last

    def _say(self, pairs_per_second: float, loss: float) -> None:
        self.taken += 1
        self.planned = max(self.planned, self.taken)
        if self.tell is not None:
            from sia.training.meter import peak_memory_gb

            place = {"stage": 1, "epoch": 1, "step": self.taken, "batch": self.taken, "batches": self.planned}
            rate = self.experiment.optimizer.learning_rate
            measures = {"loss": loss, "learning_rate": rate, "pairs_per_second": pairs_per_second}
            memory = {"peak_memory_gb": peak_memory_gb(self.ranks), "seconds_waiting": 0.0, "gradient_norm": math.nan}
            self.tell(StepRow(**place, time=time.time(), **measures, **memory))


def _halve_until_it_fits(run: Steps, batch: int, steps: int) -> tuple[int, float, float]:
    import torch

    while True:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        try:
            return batch, *run.of(batch, steps)
        except torch.cuda.OutOfMemoryError:
            if batch == 1 or run.ranks.world_size > 1:
                # Another rank waits in a collective operation: a smaller batch must be asked for.
                raise
        batch //= 2  # here: within `except` the error still holds the tensors


def _memory_gb() -> float:
    """Memory that this machine, or the job's share of it, still has; what this process holds counts as free."""
    lines = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
    free = int(lines["MemAvailable"].split()[0]) / 2**20
    granted = os.environ.get("SLURM_MEM_PER_NODE")
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return min(free + own, int(granted) / 2**10) if granted else free + own
