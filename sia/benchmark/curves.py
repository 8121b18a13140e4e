"""What a precision costs the science: the miniature's pair trained in float32 and in bf16, curves beside each other.

Each seed is trained in both, one after the other: the same weights at the start, the same batches, the same rate.
"""

import statistics
import time
from collections.abc import Callable
from functools import partial

from sia.benchmark.harness import Comparison
from sia.config import Experiment, resolve
from sia.data.loader import training_loader
from sia.data.prepared_corpus import PreparedCorpus
from sia.distributed import Ranks
from sia.progress import Said
from sia.run.selection import selection_value
from sia.sweep.corpora import provide_corpora
from sia.training.trainer import build_trainer

SIDES = ("float32", "bf16")
Curve = list[tuple[float, float]]  # of each epoch, the mean loss and R@10 on validation
EXPERIMENT = {
    "data.corpus": "scenes",
    "data.crop_size": 64,
    "data.short_side": 72,
    "data.normalisation": "corpus",
    "data.standardise_frames": True,
    "data.bucket_size": 8,
    "model.gru_layers": 2,
    "model.latent_size": 64,
    "model.image": {"blocks": [2, 2, 2], "growth_rate": 12, "initial_features": 24},
    "optimizer.learning_rate": 3e-3,
    "training.batch_size": 64,
    "runtime.image_cache_gb": 0.1,
}


def compare(case: str, epochs: int, turns: int) -> Comparison:
    """Seconds of each seed's training; facts: loss and R@10 by epoch, as means over the seeds, and R@10 in the end."""
    curves: dict[str, list[Curve]] = {side: [] for side in SIDES}
    seconds: dict[str, list[float]] = {side: [] for side in SIDES}
    said = Said(case)
    for seed in range(turns):
        for side in SIDES if seed % 2 else reversed(SIDES):
            began = time.perf_counter()
            curves[side].append(learnt(side, seed, epochs))
            seconds[side].append(time.perf_counter() - began)
        said.tell(f"seed {seed + 1} of {turns}")
    return Comparison(case, seconds, facts=told(curves))


def learnt(precision: str, seed: int, epochs: int) -> Curve:
    experiment = experiment_of(precision, seed, epochs)
    provide_corpora([experiment])
    corpus = PreparedCorpus.open(experiment.data.path)
    trainer = build_trainer(experiment, experiment.stages[0], corpus, Ranks.alone())
    state, curve = trainer.state, Curve()
    loader = training_loader(trainer.dataset, state.sampler, num_workers=0, pin=False)
    for epoch in range(epochs):
        state.sampler.set_position(epoch)
        losses = []
        for batch in loader:
            losses.append(float(trainer.step(batch)))
            state.progress.step += 1
        curve.append((statistics.mean(losses), selection_value(trainer.measure())))
    return curve


def experiment_of(precision: str, seed: int, epochs: int) -> Experiment:
    own = {"training.seed": seed, "training.precision": precision}
    return resolve({"stages": [{"epochs": epochs, "schedule": "calr"}]}, {**EXPERIMENT, **own}, source="the benchmark")


def told(curves: dict[str, list[Curve]]) -> dict[str, str]:
    """By epoch the mean over the seeds; in the end each seed's R@10, in per cent."""
    facts = {}
    for column, name, scale in ((0, "loss by epoch", 1.0), (1, "R@10 by epoch", 100.0)):
        for side, of_seeds in curves.items():
            means = [scale * statistics.mean(point[column] for point in epoch) for epoch in zip(*of_seeds, strict=True)]
            facts[f"{name}, {side}"] = " ".join(f"{mean:.4g}" for mean in means)
    for side, of_seeds in curves.items():
        ends = [100 * curve[-1][1] for curve in of_seeds]
        each = ", ".join(f"{end:.1f}" for end in ends)
        facts[f"R@10 in the end, {side}"] = f"{statistics.mean(ends):.1f} (seeds: {each})"
    return facts


CASES: dict[str, Callable[[int], Comparison]] = {
    "precision": partial(compare, "DG2A64 of the miniature, 12 epochs, a turn a seed", 12),
}
