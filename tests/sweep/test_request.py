"""What was asked for is repeated with all its settings, whatever became of the grid file."""

import os
import shutil
from pathlib import Path

import pytest
from desk import Desk, values

from sia.run.folder import again, request_of
from sia.run.lock import HeartbeatLock
from sia.run.records import Request
from sia.sweep.grid import load_grid
from sia.sweep.request import frozen_grid, remember


@pytest.fixture
def desk(tmp_path: Path, corpus: Path, migrated_database: Path, monkeypatch: pytest.MonkeyPatch) -> Desk:
    desk = Desk(tmp_path / "desk")
    shutil.copy(migrated_database, desk.folder / "mlflow.db")
    desk.write("two.yaml", {"tasks_per_node": 2})
    desk.write("tiny.yaml", {"experiment": values(corpus, stages=[{"epochs": 1, "schedule": "calr"}])})
    monkeypatch.setenv("SIA_RUNS", str(desk.folder / "runs"))
    return desk


SUBMIT = ("submit.py", "--grid", "tiny.yaml", "--cluster", "debug", "--set", "training.seed=7")
AGAIN = ("submit.py", "--again", "tiny-seed-7")


@pytest.mark.slow
def test_a_study_is_submitted_again_with_all_its_settings(desk: Desk) -> None:
    first = desk.call(*SUBMIT, "--max-concurrent", "3", "--scheduler", "none")
    assert first.returncode == 0, first.stderr
    (run,) = desk.runs("tiny-seed-7")
    told = Request.read(request_of("tiny-seed-7"))
    assert told is not None and told == Request(
        grid=str(desk.folder / "tiny.yaml"),
        overrides=["training.seed=7"],
        cluster="debug",
        scheduler="none",
        max_concurrent=3,
    )
    repeated = desk.call(*AGAIN)
    assert repeated.returncode == 0 and repeated.stderr == "" and desk.runs("tiny-seed-7") == [run]
    assert Request.read(request_of("tiny-seed-7")) == told
    # A grid file that changed, or is gone, changes nothing of what is repeated; one line tells of it.
    desk.write("tiny.yaml", {"experiment": run.experiment().model_dump(), "grid": {"model.gru_layers": [2, 3]}})
    changed = desk.call(*AGAIN, "--dry-run")
    assert "tiny.yaml makes other runs now (2 new, 1 gone)" in changed.stderr and "finished" in changed.stdout
    told.model_copy(update={"cluster": "slurm", "detach": True}).write(request_of("tiny-seed-7"))
    (desk.folder / "tiny.yaml").unlink()
    gone = desk.call(*AGAIN, "--cluster", "local", "--profile", "two.yaml")
    assert gone.returncode == 0 and "tiny.yaml: No such file" in gone.stderr and desk.runs("tiny-seed-7") == [run]
    told = Request.read(request_of("tiny-seed-7"))
    assert told is not None and (told.cluster, told.detach, told.profile) == (
        "local",
        False,
        str(desk.folder / "two.yaml"),
    )


def test_what_was_never_submitted_is_not_repeated(desk: Desk) -> None:
    refused = desk.call(*AGAIN)
    assert refused.returncode == 1 and "python jobs/submit.py --grid FILE" in refused.stderr
    assert desk.call(*AGAIN, "--set", "training.seed=1").returncode == 2
    assert not (desk.folder / "runs").exists() and again("tiny", "DG1A8-0") == "python jobs/resume.py DG1A8-0"


def test_a_study_that_is_driven_is_watched_until_its_driver_ends(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is begun, and nobody is told to end the driver."""
    submit = ("submit.py", "--grid", "tiny.yaml", "--cluster", "local", "--profile", "one.yaml")
    desk.write("one.yaml", {})
    grid = load_grid(desk.folder / "tiny.yaml")
    remember(Request(grid=str(grid.path)), grid)
    grid.create()
    with HeartbeatLock(desk.folder / "runs" / "tiny" / "driver.lock") as lock:
        shown = desk.call(*submit, "--dry-run")
        assert shown.returncode == 0 and f"driven by process {os.getpid()}" in shown.stdout
        monkeypatch.setattr("sia.sweep.drive.time.sleep", lambda _: lock.release())
        watched = desk.call(*submit)
    assert watched.returncode == 1 and f"driven by process {os.getpid()}" in watched.stderr
    assert "`python jobs/submit.py --again tiny` goes on with the rest" in watched.stderr
    assert "cancel" not in watched.stderr and "driver's" not in watched.stderr
    (run,) = desk.runs("tiny")
    assert f"{run.name}: new" in watched.stdout and not (run.path / "stages").exists()
    with HeartbeatLock(desk.folder / "runs" / "tiny" / "driver.lock") as lock:
        desk.write("tiny.yaml", {"experiment": run.experiment().model_dump(), "seeds": [0, 1]})
        other = desk.call(*submit)
    assert "1 run of this grid not among its driver's" in other.stderr and "not begun" in other.stderr


def test_a_grid_is_kept_as_it_was(tmp_path: Path) -> None:
    """With profiles that are found from anywhere, those of single points too."""
    home = tmp_path / "sia"
    (home / "slurm").mkdir(parents=True)
    for name in ("gpu", "large", "small"):
        (home / "slurm" / f"{name}.yaml").touch()
    where = [{"match": {"model.gru_layers": 2}, "profile": "slurm/large.yaml"}]
    values = {"profile": "slurm/gpu.yaml", "where": where, "miniature": {"profile": "slurm/small.yaml"}}
    frozen = frozen_grid(values, home / "sweeps" / "size.yaml")
    assert frozen["profile"] == str(home / "slurm" / "gpu.yaml")
    assert frozen["where"][0]["profile"] == str(home / "slurm" / "large.yaml")
    assert frozen["miniature"]["profile"] == str(home / "slurm" / "small.yaml")
