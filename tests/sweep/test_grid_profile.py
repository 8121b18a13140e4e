"""The profile that a grid file chooses for each of its points: where it is looked for, and what sbatch is given."""

import re
from pathlib import Path

import pytest
import yaml
from desk import Desk

from sia.errors import UsageError
from sia.sweep.grid import Grid, load_grid, profile_path

AXES = {"model.gru_layers": [2, 3], "model.latent_size": [64, 32]}


@pytest.fixture
def grid_of(tmp_path, monkeypatch):
    """Writes sweeps/depth.yaml beside the working folder, and loads it."""
    (tmp_path / "work").mkdir()
    (tmp_path / "sweeps").mkdir()
    monkeypatch.chdir(tmp_path / "work")

    def load(content: dict) -> Grid:
        path = tmp_path / "sweeps" / "depth.yaml"
        path.write_text(yaml.safe_dump(content, sort_keys=False))
        return load_grid(path)

    return load


def write_profile(path: Path) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text("partition: gpu\n")


def test_a_where_chooses_the_profile_of_its_points(tmp_path, grid_of):
    write_profile(tmp_path / "slurm" / "large.yaml")
    write_profile(tmp_path / "slurm" / "gpu.yaml")
    where = [{"match": {"model.latent_size": 64}, "profile": "slurm/large.yaml"}]
    grid = grid_of({"grid": AXES, "profile": "slurm/gpu.yaml", "where": where})
    chosen = {point.experiment.model.latent_size: point.profile for point in grid.points}
    assert chosen == {64: tmp_path / "slurm" / "large.yaml", 32: tmp_path / "slurm" / "gpu.yaml"}
    assert grid_of({"grid": AXES}).points[0].profile is None


def test_a_profile_is_found_above_the_grid_beside_it_or_where_one_works(tmp_path, grid_of):
    grid = {"grid": AXES, "profile": "gpu.yaml"}
    for place in ("work", "sweeps", "."):
        write_profile(tmp_path / place / "gpu.yaml")
        # Each of these places goes before those of the rounds before.
        assert grid_of(grid).points[0].profile == tmp_path / place / "gpu.yaml"


def test_an_absolute_profile_stays_as_it_is(tmp_path, grid_of):
    elsewhere = tmp_path / "elsewhere.yaml"
    assert grid_of({"grid": AXES, "profile": str(elsewhere)}).points[0].profile == elsewhere
    assert profile_path(tmp_path / "sweeps" / "depth.yaml", str(elsewhere)) == elsewhere


def test_a_profile_that_is_nowhere_is_named_with_its_key_and_the_folders(tmp_path, grid_of):
    looked_in = f"no 'none.yaml' in {tmp_path}, {tmp_path / 'sweeps'}, {tmp_path / 'work'};"
    with pytest.raises(UsageError, match=re.escape(f"depth.yaml: profile: {looked_in}")):
        grid_of({"grid": AXES, "profile": "none.yaml"})
    write_profile(tmp_path / "gpu.yaml")
    where = [{"match": {"model.gru_layers": 2}, "set": {}}, {"match": {"model.gru_layers": 3}, "profile": "none.yaml"}]
    with pytest.raises(UsageError, match=re.escape(f"depth.yaml: where.2.profile: {looked_in}")):
        grid_of({"grid": AXES, "profile": "gpu.yaml", "where": where})


def test_the_plan_shows_the_resources_and_the_script_of_each_profile(tmp_path):
    desk = Desk(tmp_path / "desk")
    desk.write("small.yaml", {"partition": "dev", "mem_gb": 2, "sbatch": {"exclude": "n9"}})
    desk.write("large.yaml", {"partition": "big", "nodes": 2, "tasks_per_node": 4, "gpus_per_node": 4})
    where = [{"match": {"model.latent_size": 64}, "profile": "desk/large.yaml"}]
    desk.write("grid.yaml", {"grid": {"model.latent_size": [64, 32]}, "profile": "desk/small.yaml", "where": where})
    shown = desk.run("submit.py", "--grid", "grid.yaml", "--dry-run", "--cluster", "slurm", COLUMNS="200")
    assert shown.returncode == 0, shown.stderr
    assert "2 x 4 ranks, 4 GPU/node, partition big" in shown.stdout
    small, large = (text.splitlines() for text in reversed(shown.stdout.split("#!/bin/bash")[1:]))
    assert {"#SBATCH --partition=dev", "#SBATCH --mem=2048MB", "#SBATCH --exclude=n9"} <= set(small)
    assert {"#SBATCH --partition=big", "#SBATCH --nodes=2", "#SBATCH --gpus-per-node=4"} <= set(large)
    assert not (desk.folder / "runs").exists(), "nothing is submitted or made"
