"""What steps come to between two looks, and that nothing waits for the device meanwhile."""

from pathlib import Path
from typing import Any

import pytest
import stages
import torch
from stages import STEPS
from torch.utils._python_dispatch import TorchDispatchMode

from sia.config import Stage
from sia.data.prepared_corpus import PreparedCorpus
from sia.distributed import Ranks
from sia.errors import UserError
from sia.run.folder import RunFolder
from sia.run.steps import StepRow, steps_after
from sia.training.trainer import build_trainer

EVERY_STEP = {"runtime.log_every_seconds": 1e-9}
WAITS = ("_local_scalar_dense", "nonzero", "masked_select", "equal.default", "unique")
CASES: list[dict[str, Any]] = [
    *({"loss.name": name} for name in ("hinge", "hinge_hardest", "hinge_semihard", "hinge_sampled")),
    {"loss.name": "masked_margin_softmax", "optimizer.gradient_clip": 0.1},
    {"loss.name": "info_nce", "training.chunk_size": 6, "training.precision": "bf16"},
]


class Watched(TorchDispatchMode):
    """Notes each call whose result the CPU needs of what would lie on a GPU: all but the whole numbers of frames."""

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if any(name in str(func) for name in WAITS) and args[0].dtype not in (torch.int64, torch.uint64):
            self.waits.append(f"{func} of {args[0].dtype}")
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("case", CASES)
def test_a_step_waits_for_nothing(corpus: Path, case: dict[str, Any]) -> None:
    settings = stages.experiment(corpus, **case)
    one = build_trainer(settings, settings.stages[0], PreparedCorpus.open(corpus), Ranks())
    batch = stages.first_batch(one)
    one.step(batch)  # in the first one Adam makes its state
    with Watched() as seen:
        one.step(batch, measure_norm=True)
    assert seen.waits == []
    with Watched() as seen:
        one.step(batch).item()
    assert len(seen.waits) == 1, "else it would see none"


def steps_of(run: RunFolder) -> list[StepRow]:
    return steps_after(run, 0)


def test_each_row_is_of_the_steps_since_the_one_before(corpus: Path, tmp_path: Path) -> None:
    chain = [Stage(epochs=2), Stage(epochs=1)]
    run = stages.trained(tmp_path, stages.experiment(corpus, *chain, **EVERY_STEP))
    rows, epochs = steps_of(run), stages.rows(run)
    assert [(row.stage, row.epoch, row.batch) for row in rows] == [
        *((1, 1, 1), (1, 1, 2), (1, 1, 3), (1, 2, 1), (1, 2, 2), (1, 2, 3), (2, 3, 1), (2, 3, 2), (2, 3, 3))
    ]
    assert [row.step for row in rows] == list(range(1, 10)) and {row.batches for row in rows} == {STEPS}
    for epoch in epochs:
        own = [row for row in rows if row.epoch == epoch["epoch"]]
        assert sum(row.loss for row in own) / STEPS == pytest.approx(epoch["train/loss"], rel=1e-12)
        assert own[-1].learning_rate == epoch["train/learning_rate"]
    for row in rows:
        assert row.pairs_per_second > 0 <= row.seconds_waiting and row.gradient_norm > 0 and row.peak_memory_gb > 0.05


def test_the_gradients_norm_is_that_before_it_is_clipped(corpus: Path, tmp_path: Path) -> None:
    norms = [
        steps_of(stages.trained(tmp_path / str(clip), stages.experiment(corpus, Stage(epochs=1), **clip, **EVERY_STEP)))
        for clip in ({}, {"optimizer.gradient_clip": 1e-3})
    ]
    assert norms[0][0].gradient_norm == pytest.approx(norms[1][0].gradient_norm) and norms[0][0].gradient_norm > 0.1


def test_looks_change_nothing_and_an_epoch_has_a_row_without_them(corpus: Path, tmp_path: Path) -> None:
    rare, often = (
        stages.trained(tmp_path / name, stages.experiment(corpus, Stage(epochs=2), **settings))
        for name, settings in (("rare", {}), ("often", EVERY_STEP))
    )
    assert [row.step for row in steps_of(rare)] == [STEPS, 2 * STEPS] and len(steps_of(often)) == 2 * STEPS
    assert stages.rows(rare) == stages.rows(often)
    for part in ("model", "optimizer", "random"):
        assert stages.same(*(stages.saved(run.stage(1).last)[part] for run in (rare, often))), part


def test_a_resume_has_each_step_once(corpus: Path, tmp_path: Path) -> None:
    run = stages.begin(tmp_path, stages.experiment(corpus, Stage(epochs=3), **EVERY_STEP))
    stages.train(run, flag=stages.RaisedAfter(STEPS + 2))
    run.stage(1).partial.unlink()  # as of a job that was killed: two steps are taken anew
    stages.train(run, flag=stages.RaisedAfter(1))
    stages.train(run)
    assert [row.step for row in steps_of(run)] == list(range(1, 3 * STEPS + 1))


class Poisoned:
    """A corpus one of whose captions is made of no numbers."""

    def __init__(self, corpus: PreparedCorpus, index: int) -> None:
        self._corpus, self._index = corpus, index

    def __getattr__(self, name: str) -> Any:
        return getattr(self._corpus, name)

    def frames(self, index: int) -> Any:
        frames = self._corpus.frames(index)
        return frames * float("nan") if index == self._index else frames


@pytest.mark.parametrize("settings", [{}, EVERY_STEP, {"training.chunk_size": 6}])
def test_a_loss_that_is_no_number_is_named_with_step_and_caption(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any]
) -> None:
    """Found at the next look, be it steps later; no checkpoint is written."""
    run = stages.begin(tmp_path, stages.experiment(corpus, **settings))
    prepared = PreparedCorpus.open(corpus)
    one = build_trainer(run.experiment(), run.experiment().stages[0], prepared, Ranks())
    batches = one.state.sampler.global_batches(0)
    position = int(batches[1][4])
    poisoned = Poisoned(prepared, int(one.dataset.captions[position]))
    monkeypatch.setattr("sia.training.fit.PreparedCorpus.open", lambda folder: poisoned)
    told = rf"loss is nan at step 2 by 1 of its 16 captions \({one.dataset.name(position)}\); .*, or mend these"
    with pytest.raises(UserError, match=told):
        stages.train(run)
    assert not run.stage(1).last.exists() and stages.rows(run) == []


def test_weights_that_are_no_numbers_never_replace_good_ones(corpus: Path, tmp_path: Path) -> None:
    """After a last step whose loss was good, but whose gradient was not."""
    run = stages.begin(tmp_path, stages.experiment(corpus))
    assert stages.train(run, flag=stages.RaisedAfter(STEPS + 1)) is False
    good = {path.name: path.read_bytes() for path in run.stage(1).last.parent.iterdir()}

    class Breaking(stages.RaisedAfter):
        def __bool__(self) -> bool:
            torch.nn.init.constant_(broken[0].state.model.speech.conv.bias, float("nan"))
            return super().__bool__()

    broken: list[Any] = []
    build = "sia.training.fit.build_trainer"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(build, lambda *given: broken.append(build_trainer(*given)) or broken[0])
        with pytest.raises(UserError, match=r"weights are no numbers after \d steps; lower optimizer\.learning_rate"):
            stages.train(run, flag=Breaking(1))
    assert {path.name: path.read_bytes() for path in run.stage(1).last.parent.iterdir()} == good
    assert stages.train(run)
