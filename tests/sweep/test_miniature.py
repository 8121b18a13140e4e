"""The main command on the embedded corpus, as `make sweep` runs it, with one epoch a stage."""

from pathlib import Path

import pytest
import small_scenes
from desk import REPOSITORY, Desk, assert_every_epoch_once, mlflow_history, test_rows

from sia.atomic import read_json
from sia.models.sizes import speech_parameters

pytestmark = pytest.mark.slow
STAGES = "stages=[{epochs: 1, schedule: calr}, {epochs: 1, schedule: calr, lr_scale: 0.5}]"
PAIRS = ["DG4A64", "DG4A32", "DG3A32", "DG2A64", "DG2A32"]
RECALLS = [f"test {measure} {way}" for measure in ("R1", "R5", "R10") for way in ("s2i", "i2s")]


def test_the_main_command(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    corpus = small_scenes.prepare(desk.folder / "scenes")
    grid = REPOSITORY / "sweeps" / "size.yaml"
    overrides = ("--set", f"data.folder={corpus}", "--set", STAGES)
    done = desk.run("submit.py", "--grid", grid, "--miniature", "--cluster", "local", *overrides, timeout=400)
    assert done.returncode == 0, done.stdout + done.stderr
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("--set")]
    study = line.rpartition(" ")[2]
    assert study.startswith("size-miniature-stages.1.epochs-1")
    runs = desk.runs(study)
    assert sorted(run.experiment().model.pair_name for run in runs) == sorted(PAIRS)
    history = mlflow_history(desk.uri, study)
    for run in runs:
        assert f"{speech_parameters(run.experiment().model):,}" in done.stdout and run.name in done.stdout
        assert_every_epoch_once(run, 2)
        assert (read_json(run.stage(2).plan) or {})["start_epoch"] == 1
        assert len(test_rows(run)) == 1
        finished = read_json(run.finished) or {}
        assert (finished["world_size"], finished["num_test_images"]) == (1, 40)
        assert set(RECALLS) <= history[run.name].keys()
        assert history[run.name]["validation/R10 s2i"] == [1, 2]
        assert history[f"{run.name}/2"]["selection/R_at_10"] == [2]
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("report:")]
    report = Path(line.removeprefix("report:").strip()).read_text()
    assert all(pair in report for pair in PAIRS)
    assert "make ui" in done.stdout
