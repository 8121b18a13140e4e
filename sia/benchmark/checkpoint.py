"""A checkpoint: how long training stands still for it, against its write with fsync, and what an epoch beside it loses.

An epoch is products of matrices for a while, on all threads. What a save costs it in seconds does not depend on its
length.
"""

import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

from sia.benchmark.harness import Comparison, spread
from sia.benchmark.step import MINIATURE, Size
from sia.checkpoint.background import Background, KeptCopy, on_one_thread
from sia.checkpoint.state import Progress, TrainingState, write_checkpoint
from sia.data.sampler import BucketBatchSampler
from sia.models.dual_encoder import DualEncoder

LARGEST = Size(4, 2048, (200, 2000), 224, 64)
SIDE, EPOCH_SECONDS = 1024, 20.0


def stands_still(case: str, size: Size, turns: int) -> Comparison:
    state, background, copy = _trained(size), Background(), KeptCopy()
    seconds: dict[str, list[float]] = {"stands still": [], "write with fsync": [], "until it has landed": []}
    first = 0.0
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
        path = Path(folder) / "last.pt"
        for turn in range(turns + 1):
            began = time.perf_counter()
            _save(state, background, copy, path)
            stood = time.perf_counter() - began
            background.wait()
            landed = time.perf_counter() - began
            alone = _seconds(lambda: state.save(path))
            if turn == 0:
                first = stood
                continue
            for side, taken in zip(seconds, (stood, alone, landed), strict=True):
                seconds[side].append(taken)
        facts = {"MB": path.stat().st_size / 1e6, "ms the first time": first * 1e3}
    return Comparison(case, seconds, facts={name: f"{value:,.0f}" for name, value in facts.items()})


def epoch_beside(case: str, size: Size, turns: int) -> Comparison:
    state, background, copy = _trained(size), Background(), KeptCopy()
    one, other = torch.randn(2, SIDE, SIDE)
    count = max(1, round(EPOCH_SECONDS / (_seconds(lambda: _products(one, other, 20)) / 20)))
    seconds: dict[str, list[float]] = {"epoch alone": [], "with a save beside": []}
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
        path = Path(folder) / "last.pt"
        for turn in range(turns):
            for side in list(seconds)[:: 1 if turn % 2 else -1]:
                if side == "with a save beside":
                    _save(state, background, copy, path)
                seconds[side].append(_seconds(lambda: _products(one, other, count)))
                background.wait()
    costs = [beside - alone for alone, beside in zip(*seconds.values(), strict=True)]
    told = ", ".join(f"{name} {value:.2f}" for name, value in spread(costs).items())
    return Comparison(case, seconds, facts={"seconds that a save costs": told})


def _save(state: TrainingState, background: Background, copy: KeptCopy, path: Path) -> None:
    """As a stage's recorder does at an epoch's end."""
    with on_one_thread():
        content = copy.of(state.content())
    background.begin(partial(write_checkpoint, path, content))


def _trained(size: Size) -> TrainingState:
    """After a step, so that Adam has its moments."""
    experiment = size.experiment(Path())
    torch.manual_seed(0)
    model = DualEncoder.from_config(experiment.model)
    optimizer = torch.optim.Adam(model.parameters(), fused=True)
    for weight in model.parameters():
        weight.grad = torch.full_like(weight, 1e-3)
    optimizer.step()
    optimizer.zero_grad()
    sampler = BucketBatchSampler([100] * size.batch_size, size.batch_size, 0)
    return TrainingState(model, optimizer, sampler, Progress(1), experiment.model)


def _products(one: torch.Tensor, other: torch.Tensor, count: int) -> None:
    for _ in range(count):
        one @ other


def _seconds(action: Callable[[], object]) -> float:
    began = time.perf_counter()
    action()
    return time.perf_counter() - began


CASES = {
    "miniature": partial(stands_still, "stands still for a checkpoint of DG4A64", MINIATURE),
    "largest": partial(stands_still, "stands still for a checkpoint of DG4A2048", LARGEST),
    "beside": partial(epoch_beside, f"an epoch of {EPOCH_SECONDS:.0f} s beside a save of DG4A2048", LARGEST),
}
