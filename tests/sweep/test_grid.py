"""A grid file to its points and their profiles, and what the real command prints of it before anything is submitted."""

import re
import resource
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from desk import REPOSITORY, Desk

from sia.errors import UsageError, UserError
from sia.run.folder import study_of
from sia.sweep.grid import Grid, GridPoint, load_grid, profile_path

TABLE_1 = {
    "DG4A2048": ("63,898,816", "36,155,776"),
    "DG4A1024": ("16,228,544", "33,402,240"),
    "DG3A1024": ("11,503,808", "33,402,240"),
    "DG2A2048": ("26,125,504", "36,155,776"),
    "DG2A1024": ("6,779,072", "33,402,240"),
}
AXES = {"model.gru_layers": [2, 3], "model.latent_size": [64, 32]}


@pytest.fixture
def grid_of(tmp_path, monkeypatch):
    """Writes sweeps/depth.yaml beside the working folder, and loads it."""
    (tmp_path / "work").mkdir()
    (tmp_path / "sweeps").mkdir()
    monkeypatch.chdir(tmp_path / "work")

    def load(content, miniature=False, overrides=None) -> Grid:
        path = tmp_path / "sweeps" / "depth.yaml"
        path.write_text(content if isinstance(content, str) else yaml.safe_dump(content, sort_keys=False))
        return load_grid(path, miniature, overrides)

    return load


@pytest.fixture
def refused(grid_of, tmp_path):
    """The message that a grid file is refused with."""

    def message(content, **how) -> str:
        with pytest.raises(UsageError) as caught:
            grid_of(content, **how)
        assert str(caught.value).startswith(str(tmp_path / "sweeps" / "depth.yaml"))
        assert "\n" not in str(caught.value)
        return str(caught.value)

    return message


def pairs(points: list[GridPoint]) -> list[str]:
    return [point.experiment.model.pair_name for point in points]


def seeds(points: list[GridPoint]) -> list[int]:
    return [point.experiment.training.seed for point in points]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ({"grid": AXES}, ["DG2A64", "DG2A32", "DG3A64", "DG3A32"]),
        ({"experiment": {"model.gru_layers": 4}}, ["DG4A1024"]),
        ({"study": "alone"}, ["DG3A1024"]),
        (
            {"grid": AXES, "exclude": [{"model.gru_layers": 3, "model.latent_size": 64}]},
            ["DG2A64", "DG2A32", "DG3A32"],
        ),
        ({"grid": AXES, "exclude": [{"model.gru_layers": 3}]}, ["DG2A64", "DG2A32"]),
    ],
)
def test_the_points_are_the_product_in_the_files_order_without_those_excluded(grid_of, content, expected):
    assert pairs(grid_of(content).points) == expected


def test_the_study_is_the_files_name_or_what_it_says(grid_of, refused):
    assert grid_of({"grid": AXES}).study == "depth"
    assert grid_of({"study": "other", "grid": AXES}).study == "other"
    assert grid_of({"grid": AXES, "miniature": {}}, miniature=True).study == "depth-miniature"
    assert grid_of({"study": "a", "miniature": {"study": "b"}}, miniature=True).study == "b"
    assert "study" in refused({"study": "../elsewhere"})


@pytest.mark.parametrize(("miniature", "key"), [(False, "'study:'"), (True, "'study:' under 'miniature:'")])
def test_a_file_whose_name_makes_no_study_must_name_it(tmp_path, miniature, key):
    """A study that commands could not be asked about."""
    path = tmp_path / "a b.yaml"
    path.write_text("miniature: {}")
    with pytest.raises(UsageError, match=rf"{path}: its name makes no study name; give it one with {key} \("):
        load_grid(path, miniature)
    path.write_text("study: a-b\nminiature: {study: a-c}")
    assert load_grid(path, miniature).study == ("a-c" if miniature else "a-b")


def test_where_sets_values_and_stages_of_the_points_that_match_and_the_later_wins(grid_of):
    chain = [{"epochs": 5}, {"epochs": 1, "lr_scale": 0.5}]
    where = [
        {"match": {"model.gru_layers": 3}, "set": {"loss.margin": 0.4, "training": {"batch_size": 8}}},
        {"match": {"model.gru_layers": 3, "model.latent_size": 32}, "set": {"loss.margin": 0.5, "stages": chain}},
    ]
    points = grid_of({"grid": AXES, "stages": [{"epochs": 7}], "where": where}).points
    assert [point.experiment.loss.margin for point in points] == [0.2, 0.2, 0.4, 0.5]
    assert [point.experiment.training.batch_size for point in points] == [64, 64, 8, 8]
    assert [[stage.epochs for stage in point.experiment.stages] for point in points] == [[7], [7], [7], [5, 1]]


def test_every_point_is_trained_with_every_seed(grid_of):
    points = grid_of({"grid": {"model.gru_layers": [2, 3]}, "seeds": [0, 1, 7]}).points
    assert (pairs(points), seeds(points)) == (["DG2A1024"] * 3 + ["DG3A1024"] * 3, [0, 1, 7] * 2)
    assert len({point.run.path for point in points}) == 6
    assert seeds(grid_of({"experiment": {"training": {"seed": 5}}}).points) == [5]
    assert seeds(grid_of({"grid": {"training.seed": [3, 4]}}).points) == [3, 4]


def test_overrides_lie_over_every_point(grid_of, refused):
    content = {"experiment": {"loss.margin": 0.1}, "grid": AXES, "seeds": [0]}
    points = grid_of(content, overrides={"loss.margin": 0.9, "training.batch_size": 8}).points
    assert {(p.experiment.loss.margin, p.experiment.training.batch_size) for p in points} == {(0.9, 8)}
    assert "same run" in refused({"grid": AXES}, overrides={"model.gru_layers": 2})


@pytest.mark.parametrize(
    ("overrides", "study"),
    [
        ({"data.folder": "/x", "runtime": {"num_workers": 1}, "training.batch_size": 64}, "depth"),
        ({"training.batch_size": 8, "optimizer.learning_rate": "1e-3"}, "depth-learning_rate-0.001-batch_size-8"),
        (
            {"optimizer": {"learning_rate": 1e-3}, "training": {"batch_size": 8, "seed": 0}},
            "depth-learning_rate-0.001-batch_size-8",
        ),
        ({"stages.1.epochs": 5}, "depth-stages.1.epochs-5"),
        ({"model.image.blocks": [2, 2]}, "depth-blocks-2-2-9d18de"),
    ],
)
def test_runs_that_are_not_the_files_are_a_study_of_their_own(grid_of, overrides, study):
    content = {"question": "Is deeper\nbetter?", "grid": AXES}
    grid = grid_of(content, overrides=overrides)
    assert grid.study == study and {point.study for point in grid.points} == {study}
    assert grid.told[0] == "Is deeper better?" and (len(grid.told) == 2) == (study != "depth")


def test_a_study_keeps_its_question_and_its_file_beside_its_runs(grid_of, tmp_path, monkeypatch):
    monkeypatch.setenv("SIA_RUNS", str(tmp_path / "runs"))
    grid_of({"question": "Why?"}, overrides={"loss.margin": 0.5}).create()
    kept = study_of("depth-margin-0.5")
    assert (kept.question, Path(kept.grid).name, kept.changes) == ("Why?", "depth.yaml", ["margin=0.5"])
    shown = Desk(tmp_path).call("status.py", "depth-margin-0.5").stdout
    assert shown.splitlines()[0] == "Why?"
    assert study_of("of-no-file").question == ""


def test_a_miniature_replaces_the_files_keys_and_merges_the_experiment(grid_of):
    content = {
        "experiment": {"loss.margin": 0.1, "data": {"crop_size": 64, "short_side": 72}},
        "grid": AXES,
        "exclude": [{"model.gru_layers": 3, "model.latent_size": 64}],
        "stages": [{"epochs": 100}],
        "seeds": [0, 1],
        "miniature": {
            "experiment": {"data.crop_size": 32, "training": {"batch_size": 4}},
            "grid": {"model.gru_layers": [1]},
            "exclude": [],
            "stages": [{"epochs": 1}],
        },
    }
    assert len(grid_of(content).points) == 6
    small = [point.experiment for point in grid_of(content, miniature=True).points]
    assert [(one.model.gru_layers, one.training.seed) for one in small] == [(1, 0), (1, 1)]
    assert {(one.loss.margin, one.data.crop_size, one.data.short_side, one.training.batch_size) for one in small} == {
        (0.1, 32, 72, 4)
    }
    assert {len(one.stages) for one in small} == {1} and small[0].stages[0].epochs == 1


def test_a_wrong_miniature_says_so(grid_of, refused):
    assert "no `miniature:` section" in refused({"grid": AXES}, miniature=True)
    assert not grid_of({"grid": AXES}).has_miniature
    message = refused({"grid": AXES, "miniature": {"grids": AXES}}, miniature=True)
    assert "miniature" in message and "unknown key 'grids'; the nearest valid one is 'grid'" in message


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"grid": {"model.gru_layers": []}}, "grid.model.gru_layers"),
        ({"grid": {"model.gru_layers": 3}}, "grid.model.gru_layers"),
        (
            {"grid": {"model.gru_layer": [3]}},
            "unknown key 'model.gru_layer'; the nearest valid one is 'model.gru_layers'",
        ),
        ({"experiment": {"optimizer": {"lr": 1}}}, "unknown key 'optimizer.lr'"),
        ({"grids": AXES}, "unknown key 'grids'; the nearest valid one is 'grid'"),
        ({"where": [{"match": {}, "sets": {}}]}, "unknown key 'where.1.sets'; the nearest valid one is 'where.1.set'"),
        ({"grid": AXES, "where": [{"match": {"model.gru_layers": 2}, "set": {"loss.margn": 1}}]}, "'loss.margin'"),
        ({"grid": {"model.latent_size": [64, 7]}}, "model.latent_size"),
        ({"stages": []}, "stages"),
        ({"stages": [{"epochs": 3, "schedul": "calr"}]}, "'stages.1.schedule'"),
        (
            {"experiment": {"loss.margin": 0.1}, "grid": {"loss.name": ["hinge", "info_nce"]}},
            "'loss.margin'; info_nce takes",
        ),
        ({"grid": {"model.gru_layers": [2, 2]}}, "two points of the grid are the same run (DG2A1024-"),
        ({"seeds": [1, 1]}, "same run"),
        ({"grid": AXES, "exclude": [{"model.gru_layers": 2}, {"model.gru_layers": 3}]}, "drops all 4"),
        ({"grid": AXES, "exclude": [{"model.gru_layers": 9}]}, "matches no point"),
        (
            {"grid": AXES, "where": [{"match": {"model.gru_layer": 2}, "set": {"loss.margin": 0.1}}]},
            "'model.gru_layer'",
        ),
        ({"seeds": []}, "seeds"),
        ({"seeds": ["one"]}, "seeds.1"),
        ("grid:\n  model.gru_layers: [2]\n  model.gru_layers: [3]\n", "given twice"),
        ("", "expected 'key: value' lines"),
    ],
)
def test_a_fault_names_file_and_key(refused, content, said):
    assert said in refused(content)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match=r"none\.yaml: No such file"):
        load_grid(tmp_path / "none.yaml")


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
    shown = desk.call("submit.py", "--grid", "grid.yaml", "--dry-run", "--cluster", "slurm", COLUMNS="200")
    assert "2 x 4 ranks, 4 GPU/node, partition big" in shown.stdout
    small, large = (text.splitlines() for text in reversed(shown.stdout.split("#!/bin/bash")[1:]))
    assert {"#SBATCH --partition=dev", "#SBATCH --mem=2048MB", "#SBATCH --exclude=n9"} <= set(small)
    assert {"#SBATCH --partition=big", "#SBATCH --nodes=2", "#SBATCH --gpus-per-node=4"} <= set(large)
    assert not (desk.folder / "runs").exists(), "nothing is submitted or made"


@pytest.mark.parametrize("path", sorted((REPOSITORY / "sweeps").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_sweep_names_its_section_and_has_a_miniature(path):
    comment = "".join(line for line in path.read_text().splitlines()[:6] if line.startswith("#"))
    assert "section" in comment.lower()
    full, small = load_grid(path), load_grid(path, miniature=True)
    assert full.record.question == small.record.question and full.record.question.endswith("?")
    assert full.points and small.points and small.study != full.study
    assert {point.experiment.data.corpus for point in small.points} <= {"scenes", "stamps"}
    assert all(point.profile.is_file() for point in (*full.points, *small.points))


def test_the_paper_s_grid_has_its_five_pairs_and_schedules():
    stages = {
        point.experiment.model.pair_name: [(s.epochs, s.schedule.name, s.lr_scale) for s in point.experiment.stages]
        for point in load_grid(REPOSITORY / "sweeps" / "size.yaml").points
    }
    assert stages["DG4A2048"] == [(50, "calr", 1.0), (10, "calr", 0.5)]
    assert stages["DG2A2048"] == [(120, "calr", 1.0), (30, "calr", 0.5)]
    assert stages["DG3A1024"] == stages["DG4A1024"] == [(127, "calwr", 1.0)]
    assert len(load_grid(REPOSITORY / "sweeps" / "size.yaml", miniature=True).points) == 5


def test_the_losses_have_settings_of_their_own():
    values = [point.experiment.loss.model_dump() for point in load_grid(REPOSITORY / "sweeps" / "losses.yaml").points]
    assert values[0] == {"name": "hinge", "normaliser": "mean", "margin": 0.2}
    assert {one["name"]: one["margin"] for one in values[4:5]} == {"masked_margin_softmax": 0.001}
    assert "margin" not in values[5] and values[5]["temperature"] == 0.07


def test_the_dry_run_of_the_papers_grid_shows_table_1(tmp_path):
    shown = Desk(tmp_path).call(
        "submit.py", "--grid", REPOSITORY / "sweeps/size.yaml", "--dry-run", "--cluster", "local"
    )
    assert shown.returncode == 1 and "no prepared corpus there" in shown.stderr, "as a submission would be refused"
    cells = [line.split() for line in shown.stdout.splitlines()]
    rows = {row[0]: (row[1], row[2]) for row in cells if row and row[0].startswith("DG")}
    assert rows == TABLE_1
    assert len(re.findall(r"\bsubmit\b", shown.stdout)) == 5
    assert list(tmp_path.iterdir()) == [], "a dry run writes nothing"


def test_a_dry_run_loads_neither_torch_nor_ray_nor_mlflow(tmp_path):
    code = """
import runpy, sys
sys.argv = ["submit.py", "--grid", sys.argv[2], "--dry-run", "--cluster", "local"]
try:
    runpy.run_path(sys.path[0] + "/submit.py", run_name="__main__")
except SystemExit as end:
    assert end.code == 1, "there is no corpus"
heavy = {"torch", "ray", "mlflow", "matplotlib", "submitit"} & set(sys.modules)
assert not heavy, heavy
"""
    code = "import sys; sys.path.insert(0, sys.argv[1])\n" + code
    arguments = [sys.executable, "-c", code, str(REPOSITORY / "jobs"), str(REPOSITORY / "sweeps" / "size.yaml")]
    done = subprocess.run(arguments, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "63,898,816" in done.stdout and "27.19 GB at most" in done.stdout


@pytest.mark.parametrize("command", sorted((REPOSITORY / "jobs").glob("*.py")), ids=lambda path: path.stem)
def test_help_comes_at_once(command):
    """By the processor's time, which other programs do not lengthen."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    shown = subprocess.run([sys.executable, str(command), "--help"], capture_output=True, text=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert shown.returncode == 0 and "usage:" in shown.stdout
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 0.6
