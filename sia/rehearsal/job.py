"""A rehearsal: two steps of a real, full-size pair, with the largest batch that fits, before days are spent on it."""

import json
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
from sia.config import Experiment
from sia.data.prepared_corpus import PreparedCorpus

if TYPE_CHECKING:
    from sia.distributed import Ranks
    from sia.training.trainer import Trainer

STEPS = 2
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
class Rehearse:
    """The task of one pair; its result is `rehearsal.json` of `folder`."""

    folder: str
    experiment_json: str
    threads: int

    @property
    def name(self) -> str:
        return f"rehearse {self.experiment.model.pair_name}"

    @property
    def experiment(self) -> Experiment:
        return Experiment.model_validate_json(self.experiment_json)

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
        with joined_ranks(place.rank, place.world_size, place.local_rank, meeting_place) as ranks:
            result = _rehearse(self.experiment, PreparedCorpus.open(self.experiment.data.path), ranks)
            if ranks.is_first:
                write_json(Path(self.folder) / "rehearsal.json", asdict(result))


def read_rehearsal(folder: Path) -> Rehearsal | None:
    found = read_json(folder / "rehearsal.json")
    return None if found is None else Rehearsal(**found)


def largest_batch(peaks: tuple[float, float], memory: float, wanted: int) -> int:
    """The largest batch a rank, up to `wanted`, whose peak stays within `memory`.

    The peaks are those of PROBES captions, in any one unit; memory is taken to grow linearly with the batch.
    """
    first, second = PROBES
    a_caption = max((peaks[1] - peaks[0]) / (second - first), 1e-9)
    base = peaks[0] - first * a_caption
    return max(1, min(wanted, int((memory - base) / a_caption)))


def _rehearse(experiment: Experiment, corpus: PreparedCorpus, ranks: "Ranks") -> Rehearsal:
    from sia.training.finish import device_name

    wanted = min(experiment.training.batch_size, len(corpus.split("train"))) // ranks.world_size
    if ranks.device.type == "cuda":
        batch, seconds, loss = _halve_until_it_fits(experiment, corpus, ranks, wanted)
    else:
        peaks = tuple(_peak_of(experiment, corpus, ranks, count) for count in PROBES)
        batch = largest_batch((peaks[0], peaks[1]), SHARE_OF_MEMORY * _memory_gb() / ranks.world_size, wanted)
        batch = round(-ranks.largest(-batch))
        seconds, loss = _steps(experiment, corpus, ranks, batch)
    return Rehearsal(
        experiment.model.pair_name,
        batch * ranks.world_size,
        ranks.largest(_peak_gb(ranks)),
        seconds,
        loss,
        device_name(ranks.device),
        ranks.world_size,
    )


def _steps(experiment: Experiment, corpus: PreparedCorpus, ranks: "Ranks", batch: int) -> tuple[float, float]:
    """Seconds a step and the last loss of STEPS steps of `batch` captions a rank."""
    trainer = _trainer(experiment, corpus, ranks, batch)
    batches = cycle(trainer.state.sampler)  # an epoch may be one batch
    from sia.data.loader import collate

    began, loss = time.monotonic(), 0.0
    for _ in range(STEPS):
        loss = trainer.step(collate([trainer.dataset[place] for place in next(batches)]))
        trainer.state.progress.step += 1
    ranks.barrier()
    return (time.monotonic() - began) / STEPS, loss


def _trainer(experiment: Experiment, corpus: PreparedCorpus, ranks: "Ranks", batch: int) -> "Trainer":
    from sia.training.trainer import build_trainer

    training = experiment.training.model_copy(update={"batch_size": batch * ranks.world_size})
    sized = experiment.model_copy(update={"training": training})
    return build_trainer(sized, experiment.stages[0], corpus, ranks)


def _peak_of(experiment: Experiment, corpus: PreparedCorpus, ranks: "Ranks", batch: int) -> float:
    _steps(experiment, corpus, ranks, batch)
    return _peak_gb(ranks)


def _halve_until_it_fits(
    experiment: Experiment, corpus: PreparedCorpus, ranks: "Ranks", batch: int
) -> tuple[int, float, float]:
    import torch

    while True:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        measured: tuple[float, float] | None = None
        try:
            measured = _steps(experiment, corpus, ranks, batch)
        except torch.cuda.OutOfMemoryError:
            if batch == 1 or ranks.world_size > 1:
                # Another rank waits in a collective operation: a smaller batch must be asked for.
                raise
        if measured is not None:
            return batch, *measured
        batch //= 2


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


def experiment_json(experiment: Experiment, corpus_folder: Path, corpus: str) -> str:
    """The experiment, on the embedded corpus instead of its own."""
    values: dict[str, Any] = experiment.model_dump(mode="json")
    values["data"] |= {"corpus": corpus, "folder": str(corpus_folder.absolute())}
    return json.dumps(values)
