"""A rehearsal: two steps of a real, full-size pair, with the largest batch that fits, before days are spent on it."""

import math
import os
import resource
import signal
import time
from dataclasses import asdict, dataclass
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sia.atomic import read_json, write_json
from sia.cluster.stage_job import Place
from sia.cluster.task import Task
from sia.config import Experiment
from sia.data.prepared_corpus import PreparedCorpus
from sia.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

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
    """Rehearse one pair; its result is `rehearsal.json` of `folder`. `values` are the experiment's."""

    folder: str
    values: dict[str, Any]
    threads: int

    @property
    def name(self) -> str:
        return f"rehearse {Experiment.model_validate(self.values).model.pair_name}"

    @property
    def jobs(self) -> Path:
        return Path(self.folder) / "jobs"

    @property
    def job_record(self) -> Path:
        return Path(self.folder) / "job.json"

    @property
    def stopped(self) -> Path:
        """A marker: whoever asked for the rehearsal has left."""
        return Path(self.folder) / "stopped.json"

    def result(self) -> Rehearsal | None:
        found = read_json(Path(self.folder) / "rehearsal.json")
        return None if found is None else Rehearsal(**found)

    def __call__(self) -> None:
        """Called by submitit in every rank of the job."""
        # submitit ignores it; there is nothing to save.
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        self.rehearse(Place.of_submitit())

    def rehearse(self, place: Place) -> None:
        import torch

        from sia.distributed import joined_ranks

        torch.set_num_threads(self.threads)
        meeting_place = Path(self.folder) / f"rendezvous-{place.job_id}-{place.life}.json"
        experiment = Experiment.model_validate(self.values)
        with joined_ranks(place.rank, place.world_size, place.local_rank, meeting_place) as ranks:
            result = measure(experiment, PreparedCorpus.open(experiment.data.path), ranks)
            if ranks.is_first:
                write_json(Path(self.folder) / "rehearsal.json", asdict(result))


def largest_batch(peaks: tuple[float, float], memory: float, wanted: int) -> int:
    """The largest batch a rank, up to `wanted`, whose peak stays within `memory`.

    The peaks are those of PROBES captions, in any one unit; memory is taken to grow linearly with the batch.
    """
    first, second = PROBES
    a_caption = max((peaks[1] - peaks[0]) / (second - first), 1e-9)
    base = peaks[0] - first * a_caption
    return max(1, min(wanted, int((memory - base) / a_caption)))


def measure(experiment: Experiment, corpus: PreparedCorpus, ranks: "Ranks", steps: int = STEPS) -> Rehearsal:
    """So many steps of the largest batch that fits, on a corpus of any captions."""
    from sia.training.finish import device_name

    batch = min(experiment.training.batch_size, len(corpus.split("train"))) // ranks.world_size
    if ranks.device.type == "cuda":
        batch, seconds, loss = _halve_until_it_fits(experiment, corpus, ranks, batch, steps)
    else:
        peaks = []
        for count in PROBES:
            _steps(experiment, corpus, ranks, count, steps=1)
            peaks.append(_peak_gb(ranks))
        batch = largest_batch((peaks[0], peaks[1]), SHARE_OF_MEMORY * _memory_gb() / ranks.world_size, batch)
        batch = round(-ranks.largest(-batch))
        seconds, loss = _steps(experiment, corpus, ranks, batch, steps)
    return Rehearsal(
        pair=experiment.model.pair_name,
        batch_size=batch * ranks.world_size,
        peak_memory_gb=ranks.largest(_peak_gb(ranks)),
        seconds_a_step=seconds,
        loss=loss,
        device=device_name(ranks.device),
        world_size=ranks.world_size,
    )


def _steps(
    experiment: Experiment, corpus: PreparedCorpus, ranks: "Ranks", batch: int, steps: int
) -> tuple[float, float]:
    """Seconds a step and the last loss of so many steps of `batch` captions a rank, after one to warm up."""
    from sia.data.loader import collate
    from sia.training.trainer import build_trainer

    training = experiment.training.model_copy(update={"batch_size": batch * ranks.world_size})
    sized = experiment.model_copy(update={"training": training})
    trainer = build_trainer(sized, experiment.stages[0], corpus, ranks)
    batches = cycle(trainer.state.sampler)  # an epoch may be one batch

    def step() -> "Tensor":
        loss = trainer.step(collate([trainer.dataset[place] for place in next(batches)]))
        trainer.state.progress.step += 1
        return loss

    step().item()
    ranks.barrier()
    began = time.monotonic()
    for _ in range(steps):
        loss = step()
    last = loss.item()
    ranks.barrier()
    seconds = (time.monotonic() - began) / steps
    if not math.isfinite(last):
        raise UserError(f"loss is {last}; lower optimizer.learning_rate")
    return seconds, last


def _halve_until_it_fits(
    experiment: Experiment, corpus: PreparedCorpus, ranks: "Ranks", batch: int, steps: int
) -> tuple[int, float, float]:
    import torch

    while True:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        try:
            return batch, *_steps(experiment, corpus, ranks, batch, steps)
        except torch.cuda.OutOfMemoryError:
            if batch == 1 or ranks.world_size > 1:
                # Another rank waits in a collective operation: a smaller batch must be asked for.
                raise
        batch //= 2  # here: within `except` the error still holds the tensors


def _peak_gb(ranks: "Ranks") -> float:
    import torch

    if ranks.device.type == "cuda":
        return torch.cuda.max_memory_allocated() / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def _memory_gb() -> float:
    """Memory that this machine, or the job's share of it, still has; what this process holds counts as free."""
    lines = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
    free = int(lines["MemAvailable"].split()[0]) / 2**20
    granted = os.environ.get("SLURM_MEM_PER_NODE")
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return min(free + own, int(granted) / 2**10) if granted else free + own
