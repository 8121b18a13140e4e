"""A starter grid for a prepared corpus: sized to it, trained as it is written, honest about a small pool."""

import csv
import re
import shlex
import shutil
from pathlib import Path

import pytest
import tiny_corpus
from desk import REPOSITORY, Desk

from sia.benchmark.made_up_corpus import make_up
from sia.cluster.launch import Launch, local_profile
from sia.data.prepared_corpus import PreparedCorpus
from sia.sweep.corpora import check_fit
from sia.sweep.grid import Grid, load_grid
from sia.sweep.new_grid import MIDDLE, PAPERS, Size, new_grid

SPLITS = ("train", "train", "train", "validation", "test")


def loaded(tmp_path: Path, folder: Path, gpus: int, cores: int = 2) -> tuple[Grid, list[str]]:
    text, warnings = new_grid(folder, gpus, cores)
    path = tmp_path / "new.yaml"
    path.write_text(text)
    assert max(map(len, text.splitlines())) <= 120
    return load_grid(path), warnings


@pytest.mark.parametrize(("captions", "gpus"), [(15, 0), (15, 2), (40, 3), (300, 0), (300, 8)])
def test_a_grid_fits_its_corpus_and_the_ranks_of_the_machine(tmp_path: Path, captions: int, gpus: int) -> None:
    corpus = make_up(tmp_path / "corpora" / "made up", captions, (20, 40), 32, SPLITS)
    grid, warnings = loaded(tmp_path, corpus.folder, gpus)
    for point in grid.points:
        for runs in (1, 16):
            profile = local_profile(runs).model_copy(update={"tasks_per_node": max(1, gpus), "runs_per_node": 1})
            check_fit(point.run, point.experiment, Launch("local", profile))
    assert bool(warnings) == (captions < 250)
    batch = grid.points[0].experiment.training.batch_size
    assert batch % max(1, gpus) == 0 and batch <= max(8, captions // 10)


@pytest.mark.parametrize("size", [MIDDLE, PAPERS])
def test_the_sizes_of_larger_corpora_are_ones_that_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: Size
) -> None:
    monkeypatch.setattr("sia.sweep.new_grid.SMALL", size)
    corpus = make_up(tmp_path / "corpus", 15, (20, 40), 32, SPLITS)
    grid, _ = loaded(tmp_path, corpus.folder, 0)
    assert {point.experiment.model.gru_layers for point in grid.points} == {2, 3}


def test_a_pool_that_is_hardly_larger_than_k_is_told_with_what_to_look_at(tmp_path: Path) -> None:
    small = make_up(tmp_path / "small", 40, (20, 40), 32, SPLITS)
    grid, warnings = loaded(tmp_path, small.folder, 0)
    assert "R@10 on test chooses among 8 images: by chance it is 100 %." in warnings
    assert any("--checkpoint last" in line for line in warnings)
    assert grid.points[0].experiment.stages[1].start_from == "last", "no epoch is better than another by R@10"
    larger = make_up(tmp_path / "larger", 200, (20, 40), 32, SPLITS)
    grid, warnings = loaded(tmp_path, larger.folder, 0)
    assert warnings == [f"R@10 on {split} chooses among 40 images: by chance it is 25 %." for split in SPLITS[3:]]
    assert grid.points[0].experiment.stages[1].start_from is None


@pytest.mark.slow
def test_the_guides_ten_minutes_lead_from_a_csv_to_a_measured_pair(tmp_path: Path, migrated_database: Path) -> None:
    """Its table's columns, and its commands as they stand there, but for the numbers of epochs."""
    guide = (REPOSITORY / "sia/data/README.md").read_text().partition("## Any corpus")[0]
    columns = re.search(r"^audio,image.*", guide, re.MULTILINE)
    commands = [shlex.split(line, comments=True)[1:] for line in re.findall(r"^python .*", guide, re.MULTILINE)]
    desk = Desk(tmp_path)
    shutil.copy(migrated_database, desk.folder / "mlflow.db")
    tiny_corpus.write_corpus(desk.folder / "birds", kinds=3, captions={"all": 2})
    with open(desk.folder / "birds" / "captions.csv", "w", newline="") as stream:
        rows = csv.writer(stream)
        rows.writerow(columns[0].split(","))
        for wav in sorted((desk.folder / "birds").glob("*.wav")):
            rows.writerow([wav.name, f"{wav.stem[:-2]}.png", f"speaker {wav.stem[-1]}", "two tones"])
    said = []
    for script, *arguments in commands:
        here = ["--cluster", "debug", "--scheduler", "none"] if script.endswith("submit.py") else []
        done = desk.call(Path(script).name, *arguments, *here)
        assert done.returncode == 0, done.stderr
        said.append(done.stdout)
        if script.endswith("new_grid.py"):
            grid = desk.folder / "sweeps/birds.yaml"
            grid.write_text(re.sub(r"epochs: \d+", "epochs: 1", grid.read_text()))
    assert "corpus birds, " in said[0] and "no split column: 5 images to train" in said[0]
    assert PreparedCorpus.open(desk.folder / "corpora/birds").description.name == "birds"
    assert len(desk.runs("birds")) == 2 and all(run.finished.exists() for run in desk.runs("birds"))
    assert "pool of 2 images" in said[-1]
    refused = desk.call("new_grid.py", "birds")
    assert refused.returncode == 1 and "sweeps/birds.yaml: is there already; give another" in refused.stderr


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["none"], 1, "prepare it there first: python jobs/prepare.py --root TABLE.csv --out corpora/none"),
        (["own", "--gpus", "-1"], 2, "--gpus -1: give 0 or more"),
        (["own", "--out", "sweeps/-.yaml"], 2, "study '-'"),
        (["own", "--gpus", "64"], 1, "own: 48 training captions, a batch has 64"),
    ],
)
def test_a_wrong_word_is_refused(corpus: Path, tmp_path: Path, arguments: list[str], status: int, said: str) -> None:
    desk = Desk(tmp_path)
    shutil.copytree(corpus, desk.folder / "corpora" / "own")
    done = desk.call("new_grid.py", *arguments)
    assert done.returncode == status and said in done.stderr and not (desk.folder / "sweeps").exists()
