"""Stages of runs on the tiny corpus, trained in this process."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import tiny_corpus
import torch

from sia.config import Experiment, Stage
from sia.data.loader import Batch, training_loader
from sia.distributed import Ranks
from sia.run.folder import RunFolder
from sia.run.row_files import read_rows
from sia.sweep.chain import plan_stage
from sia.training.fit import train_stage
from sia.training.preemption import PreemptionFlag
from sia.training.trainer import Trainer

TIMES = ("time", "train/seconds")
STEPS = 3  # an epoch: 48 captions in batches of 16
EPOCHS = 5


def experiment(corpus: Path, *chain: Stage, **dotted: Any) -> Experiment:
    settings = {"data.folder": str(corpus), "training.train_recall_sample": 20, "runtime.keep_every_epochs": 2}
    return tiny_corpus.experiment(*(chain or [Stage(epochs=EPOCHS)]), **{**settings, **dotted})


def first_batch(one: Trainer) -> Batch:
    return next(iter(training_loader(one.dataset, one.state.sampler, 0, pin=False)))


class RaisedAfter(PreemptionFlag):
    """A flag that is found raised at the end of the given step, counted in this job."""

    def __init__(self, steps: int) -> None:
        super().__init__()
        self.steps_left = steps

    def __bool__(self) -> bool:
        self.steps_left -= 1
        return self.steps_left <= 0


def begin(folder: Path, experiment: Experiment) -> RunFolder:
    run = RunFolder(folder / experiment.run_name)
    run.create(experiment)
    plan_stage(run, 1)
    return run


def train(
    run: RunFolder, number: int = 1, flag: PreemptionFlag | None = None, confirm: Callable[[], None] = lambda: None
) -> bool:
    """One job: all that it takes over lies in the run's folder."""
    torch.manual_seed(torch.seed())  # whatever another process's generator holds
    return train_stage(run, number, Ranks(), PreemptionFlag() if flag is None else flag, confirm=confirm)


def trained(folder: Path, experiment: Experiment) -> RunFolder:
    """All stages of a new run, without interruption."""
    run = begin(folder, experiment)
    for number in range(1, len(experiment.stages) + 1):
        plan_stage(run, number)
        assert train(run, number)
    return run


def rows(run: RunFolder) -> list[dict[str, Any]]:
    """What was measured, the times aside."""
    return [{key: value for key, value in row.items() if key not in TIMES} for row in read_rows(run.metrics)]


def cut_last_row(run: RunFolder) -> None:
    run.metrics.write_bytes(b"".join(run.metrics.read_bytes().splitlines(keepends=True)[:-1]))


def saved(path: Path) -> dict[str, Any]:
    """A checkpoint, as any program may load it."""
    return torch.load(path, weights_only=True)


def same(one: Any, other: Any) -> bool:
    """Whether two parts of checkpoints are equal to the bit."""
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(value, other[key]) for key, value in one.items())
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)
