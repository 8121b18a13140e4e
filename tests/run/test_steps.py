"""steps.jsonl: each step of a run has one row at most, whatever became of the job that wrote it before."""

from pathlib import Path

import pytest

from sia.run.folder import RunFolder
from sia.run.row_files import read_rows
from sia.run.steps import StepRow, StepWriter, latest_step, steps_after

NAN = float("nan")


def row(step: int, seconds_apart: float = 10.0, **changed: float) -> StepRow:
    """Epochs of 100 steps."""
    place = {"stage": 1, "epoch": (step - 1) // 100 + 1, "step": step, "batch": (step - 1) % 100 + 1, "batches": 100}
    cost = {"pairs_per_second": 100.0, "seconds_waiting": 0.5, "peak_memory_gb": 2.0}
    learnt = {"loss": 1 / step, "learning_rate": 1e-3, "gradient_norm": 0.25}
    return StepRow.model_validate({**place, "time": 1e9 + step * seconds_apart, **cost, **learnt, **changed})


def written(run: RunFolder, *steps: int, after: int = 0) -> list[int]:
    run.path.mkdir(exist_ok=True)
    writer = StepWriter(run.steps, after)
    for step in steps:
        writer.add(row(step))
    return [one["step"] for one in read_rows(run.steps)]


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return RunFolder(tmp_path / "run")


def test_a_job_goes_on_after_its_checkpoint(run: RunFolder) -> None:
    assert written(run, 10, 20, 30) == [10, 20, 30]
    assert written(run, 23, after=20) == [10, 20, 23], "30 was of the job that died"
    assert [one.step for one in steps_after(run, 10)] == [20, 23]
    assert steps_after(run, 0) == [row(10), row(20), row(23)]


@pytest.mark.parametrize("damage", ['{"sta', "\0\0\n", "{}\n"])
def test_damage_costs_no_row_before_it_and_none_after(run: RunFolder, damage: str) -> None:
    written(run, 10, 20)
    run.steps.write_text(run.steps.read_text() + damage)
    assert written(run, 30, after=20) == [10, 20, 30]


def test_a_file_that_cannot_be_written_stops_nobody(run: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    written(run, 10)
    writer = StepWriter(run.steps, 10)
    content = run.steps.read_bytes()
    run.steps.unlink()
    run.steps.mkdir()
    writer.add(row(20))
    assert "steps.jsonl: a row is left out" in capsys.readouterr().err
    run.steps.rmdir()
    run.steps.write_bytes(content)
    writer.add(row(30))
    assert [one["step"] for one in read_rows(run.steps)] == [10, 30]


def test_the_latest_row_is_that_of_the_epoch_under_way(run: RunFolder) -> None:
    assert latest_step(run, 0) is None and steps_after(run, 0) == []
    written(run, *range(10, 210, 10), 215)
    latest = latest_step(run, 2)
    assert latest is not None and (latest.step, latest.share_of_epoch) == (215, 0.15)
    assert latest_step(run, 3) is None
    assert len(steps_after(run, 0)) == 21 and [one.step for one in steps_after(run, 200)] == [215]
    run.steps.write_text(run.steps.read_text().replace('"step": 215', '"step": 216'))
    assert latest_step(run, 2) is None and steps_after(run, 0) == []


def test_what_is_no_number_survives(run: RunFolder) -> None:
    run.path.mkdir()
    StepWriter(run.steps, 0).add(row(1, gradient_norm=NAN))
    assert latest_step(run, 0).gradient_norm != latest_step(run, 0).gradient_norm


def test_three_days_are_nine_megabytes(run: RunFolder) -> None:
    """A row every ten seconds."""
    written(run, 6_000_000)
    assert run.steps.stat().st_size * 3 * 24 * 360 < 9.5e6
