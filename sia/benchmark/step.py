"""A training step: ours, of a bucketed batch, against the plain one, of a random batch; loading is not timed.

Each side's batch is the one of median length in its epoch. Both begin with the same weights.
"""

import tempfile
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch

from sia.benchmark.harness import Action, Comparison, in_turn, peaks_mb
from sia.benchmark.made_up_corpus import make_up
from sia.benchmark.plain_pair import PlainPair
from sia.config import Experiment, resolve
from sia.data.images import normalise
from sia.data.loader import Batch, collate
from sia.data.prepared_corpus import PreparedCorpus
from sia.distributed import Ranks
from sia.training.trainer import Trainer, build_trainer

EPOCH = 24  # batches


@dataclass(frozen=True)
class Size:
    """A pair, its captions between so many frames, images of side * side, and captions a batch."""

    gru_layers: int
    latent_size: int
    num_frames: tuple[int, int]
    side: int
    batch_size: int
    image: tuple[tuple[str, object], ...] = ()

    def experiment(self, corpus: Path, **training: object) -> Experiment:
        model = {"gru_layers": self.gru_layers, "latent_size": self.latent_size, "image": dict(self.image)}
        data = {"folder": str(corpus), "crop_size": self.side, "short_side": self.side}
        values = {"model": model, "data": data, "training": {"batch_size": self.batch_size, **training}}
        return resolve({**values, "stages": [{"epochs": 1, "schedule": "calr"}]}, {}, source="the benchmark")


MINIATURE = Size(4, 64, (135, 210), 64, 32, (("blocks", [2, 2, 2]), ("growth_rate", 12), ("initial_features", 24)))
FULL = Size(3, 1024, (200, 2000), 224, 16)


def compare(case: str, size: Size, turns: int, **training: object) -> Comparison:
    """Seconds, peak memory, and the loss that both sides give of one batch before their first step.

    training: settings of ours, such as precision or recompute.
    """
    with tempfile.TemporaryDirectory() as folder:
        make_up(Path(folder), EPOCH * size.batch_size, size.num_frames, size.side)
        sides = {"ours": partial(ours, size, Path(folder), **training), "plain": partial(plain, size, Path(folder))}
        compared = in_turn(case, sides, turns)
        compared.facts.update(losses(size, Path(folder), **training))
        compared.memory_mb.update(peaks_mb(sides))
    return compared


def ours(size: Size, folder: Path, **training: object) -> Action:
    trainer = _trainer(size, folder, **training)
    return partial(trainer.step, bucketed_batch(trainer))


def plain(size: Size, folder: Path) -> Action:
    trainer = _trainer(size, folder)
    device, batch = trainer.ranks.device, random_batch(trainer)
    pair = _plain_pair(trainer)
    del trainer
    optimizer = torch.optim.Adam(pair.parameters(), 2e-4)

    def step() -> float:
        images = normalise(batch.images.to(device), torch.full((3,), 0.5).to(device), torch.ones(3).to(device))
        optimizer.zero_grad()
        loss = pair.loss(batch.frames.to(device), batch.num_frames, images)
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


def losses(size: Size, folder: Path, **training: object) -> dict[str, float]:
    """What both sides say of the same batch with the same weights."""
    trainer = _trainer(size, folder, **training)
    batch, pair = bucketed_batch(trainer), _plain_pair(trainer)
    images = normalise(batch.images.to(trainer.ranks.device), trainer.pixel_mean, trainer.pixel_std)
    frames = batch.frames.to(trainer.ranks.device)
    with torch.no_grad():
        theirs = pair.loss(frames, batch.num_frames, images)
    return {"loss, ours": float(trainer.step(batch)), "loss, plain": float(theirs)}


def bucketed_batch(trainer: Trainer) -> Batch:
    return _median_batch(trainer, trainer.state.sampler.global_batches(0))


def random_batch(trainer: Trainer) -> Batch:
    order = np.random.default_rng(0).permutation(len(trainer.dataset.lengths))
    return _median_batch(trainer, order.reshape(-1, trainer.experiment.training.batch_size))


def _median_batch(trainer: Trainer, batches: np.ndarray) -> Batch:
    longest = np.asarray(trainer.dataset.lengths)[batches].max(axis=1)
    chosen = batches[np.argsort(longest)[len(batches) // 2]]
    return collate([trainer.dataset[int(place), 0] for place in chosen])


def _trainer(size: Size, folder: Path, **training: object) -> Trainer:
    experiment = size.experiment(folder, **training)
    return build_trainer(experiment, experiment.stages[0], PreparedCorpus.open(folder), Ranks.alone())


def _plain_pair(trainer: Trainer) -> PlainPair:
    pair = PlainPair(trainer.experiment.model)
    pair.load_state_dict(trainer.state.model.state_dict())
    return pair.to(trainer.ranks.device)


PAIR = "DG3A1024, 224 px, 16 captions of 2 to 20 s"
CASES = {
    "miniature": partial(compare, "DG4A64, 64 px, 32 captions of 1.4 to 2.1 s", MINIATURE),
    "full": partial(compare, PAIR, FULL),
    "full-bf16": partial(compare, f"{PAIR}, ours in bf16", FULL, precision="bf16"),
    "full-memory": partial(compare, f"{PAIR}, ours in bf16, recomputed", FULL, precision="bf16", recompute=True),
}
