"""A grid file to its points, and what the real command prints of it before anything is submitted."""

import re
import subprocess
import sys
import time

import pytest
import yaml
from desk import REPOSITORY, Desk

from sia.errors import UsageError, UserError
from sia.sweep.grid import GridPoint, load_grid

TABLE_1 = {
    "DG4A2048": ("63,898,816", "36,155,776"),
    "DG4A1024": ("16,228,544", "33,402,240"),
    "DG3A1024": ("11,503,808", "33,402,240"),
    "DG2A2048": ("26,125,504", "36,155,776"),
    "DG2A1024": ("6,779,072", "33,402,240"),
}
AXES = {"model.gru_layers": [2, 3], "model.latent_size": [64, 32]}


@pytest.fixture
def grid_of(tmp_path):
    """Writes a grid file and loads it."""

    def load(content, miniature=False, overrides=None):
        path = tmp_path / "sweeps" / "depth.yaml"
        path.parent.mkdir(exist_ok=True)
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


def test_the_points_are_the_product_in_the_files_order(grid_of):
    assert pairs(grid_of({"grid": AXES}).points) == ["DG2A64", "DG2A32", "DG3A64", "DG3A32"]


def test_a_file_without_a_grid_is_one_point(grid_of):
    assert pairs(grid_of({"experiment": {"model.gru_layers": 4}}).points) == ["DG4A1024"]
    assert pairs(grid_of({"study": "alone"}).points) == ["DG3A1024"]


def test_the_study_is_the_files_name_or_what_it_says(grid_of):
    assert grid_of({"grid": AXES}).study == "depth"
    assert grid_of({"study": "other", "grid": AXES}).study == "other"
    assert grid_of({"grid": AXES, "miniature": {}}, miniature=True).study == "depth-miniature"
    assert grid_of({"study": "a", "miniature": {"study": "b"}}, miniature=True).study == "b"


def test_a_study_is_no_path(refused):
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


def test_exclude_drops_all_points_that_match(grid_of):
    left = grid_of({"grid": AXES, "exclude": [{"model.gru_layers": 3, "model.latent_size": 64}]})
    assert pairs(left.points) == ["DG2A64", "DG2A32", "DG3A32"]
    left = grid_of({"grid": AXES, "exclude": [{"model.gru_layers": 3}]})
    assert pairs(left.points) == ["DG2A64", "DG2A32"]


def test_where_sets_values_of_the_points_that_match_and_the_later_wins(grid_of):
    where = [
        {"match": {"model.gru_layers": 3}, "set": {"loss.margin": 0.4, "training": {"batch_size": 8}}},
        {"match": {"model.gru_layers": 3, "model.latent_size": 32}, "set": {"loss.margin": 0.5}},
    ]
    margins = [point.experiment.loss.margin for point in grid_of({"grid": AXES, "where": where}).points]
    batches = [point.experiment.training.batch_size for point in grid_of({"grid": AXES, "where": where}).points]
    assert margins == [0.2, 0.2, 0.4, 0.5]
    assert batches == [64, 64, 8, 8]


def test_where_may_give_a_point_another_chain_of_stages(grid_of):
    where = [{"match": {"model.gru_layers": 3}, "set": {"stages": [{"epochs": 5}, {"epochs": 1, "lr_scale": 0.5}]}}]
    grid = grid_of({"grid": {"model.gru_layers": [2, 3]}, "stages": [{"epochs": 7}], "where": where})
    assert [[stage.epochs for stage in point.experiment.stages] for point in grid.points] == [[7], [5, 1]]


def test_stages_of_the_file_are_the_experiments(grid_of):
    assert [s.epochs for s in grid_of({"stages": [{"epochs": 4}, {"epochs": 2}]}).points[0].experiment.stages] == [4, 2]


def test_every_point_is_trained_with_every_seed(grid_of):
    grid = grid_of({"grid": {"model.gru_layers": [2, 3]}, "seeds": [0, 1, 7]})
    seeds = [(point.experiment.model.gru_layers, point.experiment.training.seed) for point in grid.points]
    assert seeds == [(2, 0), (2, 1), (2, 7), (3, 0), (3, 1), (3, 7)]
    assert len({point.run.path for point in grid.points}) == 6


def test_a_seed_of_the_experiment_or_the_grid_is_honoured(grid_of):
    assert grid_of({"experiment": {"training": {"seed": 5}}}).points[0].experiment.training.seed == 5
    points = grid_of({"grid": {"training.seed": [3, 4]}}).points
    assert [point.experiment.training.seed for point in points] == [3, 4]


def test_overrides_lie_over_every_point(grid_of):
    content = {"experiment": {"loss.margin": 0.1}, "grid": AXES, "seeds": [0]}
    points = grid_of(content, overrides={"loss.margin": 0.9, "training.batch_size": 8}).points
    assert {(p.experiment.loss.margin, p.experiment.training.batch_size) for p in points} == {(0.9, 8)}


def test_an_override_that_makes_two_points_equal_is_refused(grid_of, refused):
    assert "same run" in refused({"grid": AXES}, overrides={"model.gru_layers": 2})


def test_two_equal_points_are_refused(refused):
    assert "two points of the grid are the same run (DG2A1024-" in refused({"grid": {"model.gru_layers": [2, 2]}})
    assert "same run" in refused({"seeds": [1, 1]})


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


def test_a_file_without_a_miniature_says_so(grid_of, refused):
    assert "no `miniature:` section" in refused({"grid": AXES}, miniature=True)
    assert not grid_of({"grid": AXES}).has_miniature


def test_an_unknown_key_inside_a_miniature_is_named(refused):
    message = refused({"grid": AXES, "miniature": {"grids": AXES}}, miniature=True)
    assert "miniature" in message and "unknown key 'grids'; the nearest valid one is 'grid'" in message


@pytest.mark.parametrize("section", ["exclude", "where"])
def test_a_filter_that_matches_no_point_is_refused(refused, section):
    for match, said in (({"model.gru_layers": 9}, "matches no point"), ({"model.gru_layer": 2}, "'model.gru_layer'")):
        entry = match if section == "exclude" else {"match": match, "set": {"loss.margin": 0.1}}
        assert said in refused({"grid": AXES, section: [entry]})


def test_a_grid_of_which_nothing_is_left_is_refused(refused):
    assert "drops all 4" in refused({"grid": AXES, "exclude": [{"model.gru_layers": 2}, {"model.gru_layers": 3}]})


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


@pytest.mark.parametrize("path", sorted((REPOSITORY / "sweeps").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_sweep_names_its_section_and_has_a_miniature(path):
    comment = "".join(line for line in path.read_text().splitlines()[:6] if line.startswith("#"))
    assert "section" in comment.lower()
    full, small = load_grid(path), load_grid(path, miniature=True)
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
    desk = Desk(tmp_path)
    shown = desk.run("submit.py", "--grid", REPOSITORY / "sweeps/size.yaml", "--dry-run", "--cluster", "local")
    assert shown.returncode == 0, shown.stderr
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
    assert not end.code, end.code
heavy = {"torch", "ray", "mlflow", "matplotlib", "submitit"} & set(sys.modules)
assert not heavy, heavy
"""
    code = "import sys; sys.path.insert(0, sys.argv[1])\n" + code
    arguments = [sys.executable, "-c", code, str(REPOSITORY / "jobs"), str(REPOSITORY / "sweeps" / "size.yaml")]
    done = subprocess.run(arguments, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "63,898,816" in done.stdout


@pytest.mark.parametrize("command", sorted((REPOSITORY / "jobs").glob("*.py")), ids=lambda path: path.stem)
def test_help_comes_at_once(command):
    seconds = []
    for _ in range(3):
        began = time.monotonic()
        shown = subprocess.run([sys.executable, str(command), "--help"], capture_output=True, text=True)
        seconds.append(time.monotonic() - began)
        assert shown.returncode == 0 and "usage:" in shown.stdout
        if seconds[-1] < 0.5:
            return
    assert min(seconds) < 0.5
