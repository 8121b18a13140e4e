"""A rehearsal finds the largest batch that fits, and measures two steps of it."""

from pathlib import Path

import pytest
from desk import experiment
from hypothesis import given
from hypothesis import strategies as st

from sia.cluster.stage_job import Place
from sia.config import Experiment
from sia.errors import UserError
from sia.operate.status import view
from sia.rehearsal.job import Rehearse, largest_batch
from sia.run.folder import RunFolder
from sia.run.records import Stopped
from sia.run.row_files import read_rows
from sia.run.state import State, look


@pytest.mark.parametrize(
    ("peaks", "memory", "wanted", "expected"),
    [
        ((2.0, 3.0), 10.0, 64, 9),  # 1 for the model, 1 a caption
        ((2.0, 3.0), 10.0, 4, 4),
        ((2.0, 3.0), 1.5, 64, 1),
        ((2.0, 2.0), 10.0, 64, 64),  # a caption that cannot be told from nothing
    ],
)
def test_the_largest_batch_by_hand(peaks: tuple[float, float], memory: float, wanted: int, expected: int) -> None:
    assert largest_batch(peaks, memory, wanted) == expected


@given(st.floats(0.1, 10), st.floats(0.01, 2), st.floats(1, 100), st.integers(1, 512))
def test_the_largest_batch_fits_and_one_more_does_not(model: float, caption: float, memory: float, wanted: int) -> None:
    batch = largest_batch((model + caption, model + 2 * caption), memory, wanted)
    assert batch == 1 or model + batch * caption <= memory * 1.001
    assert batch == wanted or model + (batch + 1) * caption > memory * 0.999


def rehearsal_in(root: Path, what: Experiment) -> Rehearse:
    run = RunFolder(root / "size.rehearsal" / what.run_name)
    run.create(what)
    return Rehearse(str(run.path), threads=1)


@pytest.mark.slow
def test_two_steps_of_a_pair(corpus: Path, tmp_path: Path) -> None:
    task = rehearsal_in(tmp_path, experiment(corpus))
    task.rehearse(Place())
    result, run = task.result(), task.run
    assert (look(run).state, view(run).reason.split(",")[0], run.lock.exists()) == (State.FINISHED, "batch 4", False)
    assert [row["batch"] for row in read_rows(run.steps)] == list(range(1, 8)), "two probes of two, one to warm up, two"
    assert result is not None
    assert result.pair == "DG1A8"
    assert result.batch_size == 4
    assert result.seconds_a_step > 0
    assert 0.1 < result.peak_memory_gb < 24


@pytest.mark.slow
def test_a_batch_that_the_corpus_cannot_hold_is_as_large_as_it_can(corpus: Path, tmp_path: Path) -> None:
    large = experiment(corpus, **{"training.batch_size": 512})
    task = rehearsal_in(tmp_path, large)
    task.rehearse(Place())
    result = task.result()
    assert result is not None and result.batch_size == 48


def test_a_job_that_begins_after_its_rehearsal_was_left_measures_nothing(corpus: Path, tmp_path: Path) -> None:
    task = rehearsal_in(tmp_path, experiment(corpus))
    Stopped(by="rehearse").write(task.run.stopped)
    task.rehearse(Place())
    assert task.result() is None and look(task.run).state == State.STOPPED


def test_an_error_is_told_as_that_of_any_run(tmp_path: Path) -> None:
    task = rehearsal_in(tmp_path, experiment(tmp_path / "nowhere"))
    with pytest.raises(UserError):
        task.rehearse(Place())
    assert "nowhere" in look(task.run).error
