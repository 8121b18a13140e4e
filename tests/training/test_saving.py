"""Epochs are saved beside training: what is not on the disk yet counts nowhere, whatever becomes of the job."""

import errno
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import stages
import torch
from stages import STEPS, experiment

from sia.checkpoint.chosen import damage_of
from sia.config import Stage
from sia.errors import UserError
from sia.run.folder import RunFolder
from sia.training.trainer import Trainer

EPOCHS = 3
KILLED = """
import os, signal, sys, threading
from pathlib import Path
import torch
sys.path.insert(0, sys.argv[2])
import stages
from sia.run.folder import RunFolder

run, save, next_epoch = RunFolder(Path(sys.argv[1])), torch.save, threading.Event()

class Watch(stages.RaisedAfter):
    def __bool__(self):
        raised = super().__bool__()
        if self.steps_left < 0:
            next_epoch.set()
        return False

def save_half(content, stream):
    if content["progress"]["epochs_done"] < 2:
        return save(content, stream)
    assert next_epoch.wait(60), "training stands still"
    stream.write(b"PK and half of it")
    stream.flush()
    os.kill(os.getpid(), signal.SIGKILL)

torch.save = save_half
torch.set_num_threads(1)
stages.train(run, flag=Watch(2 * stages.STEPS))
"""


@pytest.fixture(scope="module")
def settings(corpus: Path) -> Any:
    return experiment(corpus, Stage(epochs=EPOCHS))


@pytest.fixture(scope="module")
def whole(settings: Any, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return stages.trained(tmp_path_factory.mktemp("whole"), settings)


@pytest.fixture
def run(settings: Any, tmp_path: Path) -> RunFolder:
    return stages.begin(tmp_path, settings)


def goes_on_as(run: RunFolder, whole: RunFolder) -> bool:
    assert stages.train(run) is True
    assert stages.rows(run) == stages.rows(whole) and run.stage(1).done.exists()
    for name in ("last", "best"):
        here, there = (stages.saved(getattr(one.stage(1), name)) for one in (run, whole))
        for part in ("model", "optimizer", "sampler"):
            assert stages.same(here[part], there[part]), (name, part)
    return True


def holds(run: RunFolder, epochs: int, rows: int) -> bool:
    """Whether last.pt is of so many epochs and whole, no file is, nor the rows are, ahead of it, and none is done."""
    stage = run.stage(1)
    files = {path: len(stages.saved(path)["progress"]["rows"]) for path in stage.last.parent.glob("*.pt")}
    assert all(damage_of(path) is None for path in files) and max(files.values(), default=0) <= epochs
    assert not stage.done.exists()
    return files.get(stage.last, 0) == epochs and len(stages.rows(run)) == rows


def test_a_job_that_is_killed_in_mid_write_leaves_the_epoch_before(run: RunFolder, whole: RunFolder) -> None:
    """While it writes the second epoch, it trains in the third."""
    command = [sys.executable, "-c", KILLED, str(run.path), str(Path(stages.__file__).parent)]
    assert subprocess.run(command).returncode == -signal.SIGKILL
    left = [path.read_bytes() for path in run.stage(1).last.parent.glob(".last.pt.*.tmp")]
    assert left == [b"PK and half of it"]
    assert holds(run, epochs=1, rows=1)
    assert goes_on_as(run, whole)
    assert not list(run.path.rglob(".*.tmp"))


class TakenOver(Exception):
    """Ends a job in the place of os._exit."""


@pytest.mark.parametrize(
    ("writes", "epochs", "rows"),
    [(0, 0, 0), (1, 0, 0), (2, 1, 0), (3, 1, 1), (4, 1, 1), (5, 2, 1), (6, 2, 1), (7, 2, 2)],
)
def test_a_job_whose_run_was_taken_over_writes_nothing_more(
    run: RunFolder, whole: RunFolder, writes: int, epochs: int, rows: int
) -> None:
    """Of each epoch it is asked first, before either checkpoint counts (the second is kept), and before the row."""
    left, lost = iter(range(writes)), threading.Event()

    def confirm() -> None:
        if threading.current_thread() is not threading.main_thread() and next(left, None) is None:
            lost.set()
        if lost.is_set():
            raise TakenOver

    with pytest.raises(TakenOver):
        stages.train(run, confirm=confirm)
    assert holds(run, epochs, rows)
    assert goes_on_as(run, whole)


@pytest.mark.parametrize("epoch", [2, EPOCHS])
def test_a_full_disk_ends_the_job_and_leaves_the_epoch_before(
    run: RunFolder, whole: RunFolder, monkeypatch: pytest.MonkeyPatch, epoch: int
) -> None:
    """At the next write; after the last epoch, before the stage counts as done."""
    saves(monkeypatch, epoch, refuse)
    with pytest.raises(OSError, match="No space left"):
        stages.train(run)
    monkeypatch.undo()
    assert holds(run, epoch - 1, epoch - 1)
    assert goes_on_as(run, whole)


def test_weights_that_are_no_numbers_at_an_epochs_end_leave_the_epoch_before(run: RunFolder, whole: RunFolder) -> None:
    """After a last step whose loss was good: found in the copy, beside the next epoch, or before the stage is done."""
    ends = iter(range(EPOCHS))

    def break_weights(trainer: Trainer) -> dict[str, float]:
        measured = measure(trainer)
        if next(ends) == EPOCHS - 1:
            torch.nn.init.constant_(next(trainer.state.model.parameters()), float("nan"))
        return measured

    measure = Trainer.measure
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "measure", break_weights)
        with pytest.raises(UserError, match=rf"weights are no numbers after {EPOCHS * STEPS} steps; lower optimizer"):
            stages.train(run)
    assert holds(run, EPOCHS - 1, EPOCHS - 1)
    previous = torch.load(run.stage(1).previous, weights_only=True)
    assert previous["progress"]["epochs_done"] == EPOCHS - 2
    assert goes_on_as(run, whole)


def test_an_error_of_training_is_told_and_not_that_of_a_save(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fails = threading.Event()
    saves(monkeypatch, 1, lambda: (fails.wait(60), refuse()))

    class Fails(stages.RaisedAfter):
        def __bool__(self) -> bool:
            if super().__bool__():
                fails.set()
                raise ZeroDivisionError
            return False

    with pytest.raises(ZeroDivisionError):
        stages.train(run, flag=Fails(STEPS + 1))
    assert "the last epoch was not saved: [Errno 28]" in capsys.readouterr().err


class Told(stages.RaisedAfter):
    """A signal that arrives while an epoch is being written."""

    def __init__(self, steps: int) -> None:
        super().__init__(steps)
        self.arrived = threading.Event()

    def __bool__(self) -> bool:
        if raised := super().__bool__():
            self.arrived.set()
        return raised


def test_a_preemption_waits_for_the_epoch_before_it_saves(run: RunFolder, whole: RunFolder) -> None:
    flag, seen = Told(STEPS + 1), []

    def confirm() -> None:
        if threading.current_thread() is not threading.main_thread():
            assert flag.arrived.wait(60)
            seen.append(run.stage(1).partial.exists())

    assert stages.train(run, flag=flag, confirm=confirm) is False
    assert len(seen) == 3 and not any(seen)
    assert holds_partial(run) and len(stages.rows(run)) == 1
    assert goes_on_as(run, whole)


def holds_partial(run: RunFolder) -> bool:
    last, partial = (stages.saved(path)["progress"] for path in (run.stage(1).last, run.stage(1).partial))
    return (last["step"], partial["step"]) == (STEPS, STEPS + 1)


def test_done_follows_the_last_epoch(run: RunFolder, whole: RunFolder) -> None:
    """And no row precedes its checkpoint."""
    seen = []

    def confirm() -> None:
        if threading.current_thread() is not threading.main_thread():
            kept = len(stages.saved(run.stage(1).last)["progress"]["rows"]) if run.stage(1).last.exists() else 0
            seen.append((kept - len(stages.rows(run)), run.stage(1).done.exists()))

    assert stages.train(run, confirm=confirm) is True
    assert [ahead for ahead, _ in seen] == [0, 0, 1, 0, 0, 1, 1, 0, 0, 1]
    assert not any(done for _, done in seen)
    assert stages.rows(run) == stages.rows(whole)


def saves(monkeypatch: pytest.MonkeyPatch, epoch: int, instead: Callable[[], object]) -> None:
    """Do something else where the end of that epoch is to be written."""
    save = torch.save

    def of_epoch(content: dict[str, Any], stream: Any) -> None:
        if content["progress"]["epochs_done"] < epoch:
            save(content, stream)
        else:
            instead()

    monkeypatch.setattr(torch, "save", of_epoch)


def refuse() -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
