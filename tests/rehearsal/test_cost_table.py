"""What a run costs, with numbers that are worked out by hand."""

import json
from pathlib import Path

import pytest
from desk import Desk, values

from sia.atomic import write_json
from sia.config import Experiment, resolve
from sia.models.sizes import image_parameters, speech_parameters
from sia.run import cost as costs
from sia.run.cost import Pace, captions_of, checkpoint_gb, cost, exchanged_bytes, in_words, rehearsal_of
from sia.run.folder import RunFolder
from sia.sweep.grid import load_grid

CAPTIONS = {"train": 1000, "validation": 90, "test": 120}
VALUES = {
    "training": {"batch_size": 8, "train_recall_sample": 30},
    "stages": [{"epochs": 3, "schedule": "calr"}, {"epochs": 2, "schedule": "calr"}],
    "runtime": {"keep_every_epochs": 2},
    "model": {"latent_size": 16},
}


@pytest.fixture
def experiment(monkeypatch: pytest.MonkeyPatch) -> Experiment:
    monkeypatch.setattr(costs, "parameters", lambda experiment: 1_000_000)
    return resolve(VALUES, source="test")


def test_time_and_gpu_hours_by_hand(experiment: Experiment) -> None:
    """Half a second a caption: 125 steps of 4 s; 120 captions looked at for 20 s; 5 epochs; 120 of test for 20 s."""
    found = cost(experiment, CAPTIONS, Pace(2.0, 4, device="some card"), ranks=1, bandwidth=10.0)
    assert found.hours * 3600 == pytest.approx(5 * (125 * 4.0 + 20) + 20)
    assert found.device_hours == found.hours


def test_ranks_share_captions_and_wait_for_what_they_exchange(experiment: Experiment) -> None:
    """Each sends 3/4 of 8 MB of gradient and of 8 captions' two embeddings of 16 floats: 6.000768 MB, 6 ms."""
    assert exchanged_bytes(experiment, 8, 1) == 0
    assert exchanged_bytes(experiment, 8, 4) == 6_000_768
    found = cost(experiment, CAPTIONS, Pace(2.0, 4), ranks=4, bandwidth=1.0)
    assert found.hours * 3600 == pytest.approx(5 * (125 * (1.0 + 0.006000768) + 5) + 5)
    assert found.device_hours == pytest.approx(4 * found.hours)


def test_what_ranks_of_a_measured_step_exchanged_is_no_arithmetic(experiment: Experiment) -> None:
    alone, cores = Pace(2.0, 4), 3
    together = Pace(1.0 + exchanged_bytes(experiment, 8, 4) / 1e9, 8, ranks=4, cores=cores)
    found, same = (cost(experiment, CAPTIONS, pace, 1, bandwidth=1.0) for pace in (alone, together))
    assert same.hours == pytest.approx(found.hours) and same.device_hours == pytest.approx(cores * found.hours)


def test_checkpoints_hold_adams_moments_and_kept_weights_do_not(experiment: Experiment) -> None:
    """Best and last of two stages, the one before the last, 12 MB each; weights of epochs 2 and 4, 4 MB each."""
    assert checkpoint_gb(experiment) == pytest.approx(0.068)


def test_table_1_is_what_is_counted() -> None:
    model = resolve(VALUES, source="test").model
    whole = speech_parameters(model) + image_parameters(model)
    assert costs.parameters(resolve(VALUES, source="test")) == whole


@pytest.mark.parametrize(("hours", "told"), [(76.8, "3.2 d"), (4.5, "4.5 h"), (0.118, "7.1 min"), (2 / 3600, "2.0 s")])
def test_hours_in_words(hours: float, told: str) -> None:
    assert in_words(hours) == told


def test_a_dry_run_and_the_benchmark_tell_costs_by_the_step_of_a_rehearsal(corpus: Path, tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    grid = desk.write("grid.yaml", {"experiment": values(corpus)})
    dry_run = ("submit.py", "--grid", grid, "--dry-run", "--cluster", "local")
    assert "rehearsal" not in desk.call(*dry_run).stdout
    (point,) = load_grid(grid).points
    told = {"pair": "DG1A8", "batch_size": 4, "peak_memory_gb": 1.0, "seconds_a_step": 36.0, "loss": 1.0}
    record = tmp_path / "runs" / "grid.rehearsal" / rehearsal_of(point.experiment).run_name / "rehearsal.json"
    write_json(record, {**told, "device": "some card", "world_size": 1})
    count = captions_of(point.experiment)
    assert count is not None
    shown = desk.call(*dry_run).stdout
    RunFolder(tmp_path / "runs" / "grid" / point.run.name).create(point.experiment)
    (study,) = [one for one in json.loads(desk.call("status.py", "--json").stdout) if one["study"] == "grid"]
    (row,) = json.loads(desk.call("benchmark.py", "plan", "--grid", grid, "--json").stdout)
    hours = (3 * (count["train"] // 4 * 4 + (count["validation"] + 4) / 3) + count["test"] / 3) * 9 / 3600
    assert row["costs"]["1"] == {"hours": pytest.approx(hours), "device_hours": pytest.approx(hours)}
    assert row["costs"]["8"] is None and row["corpus_prepared"] and row["unit"] == "GPU-hours"
    assert study["runs"][0]["seconds_left"] == pytest.approx(hours * 3600), "before it has measured an epoch of its own"
    assert in_words(hours / 2) in shown and "GPU-hours" in shown


@pytest.mark.slow
def test_a_step_is_measured_where_no_rehearsal_told_it(corpus: Path, tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    grid = desk.write("grid.yaml", {"experiment": values(corpus)})
    done = desk.call("benchmark.py", "plan", "--grid", grid, "--turns", 2, "--batch", 2)
    assert done.returncode == 0 and "s of 2" in done.stdout and "core-hours" in done.stdout
