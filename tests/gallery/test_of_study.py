"""Which run of a study the gallery is of."""

import shutil
from pathlib import Path

import pytest
import written_runs
from desk import Desk

from sia.gallery.of_study import best_of, gallery_of_study
from sia.run.folder import RunFolder, runs_of


def test_the_finished_run_that_finds_most(tmp_path: Path) -> None:
    configs = [written_runs.experiment(**{"training.seed": seed}) for seed in range(4)]
    finished = [
        written_runs.finish_run(tmp_path, "study", config, peak)
        for config, peak in zip(configs, (0.4, 0.8, 0.9), strict=False)
    ]
    written_runs.begin_run(tmp_path, "study", configs[3])
    finished[2].finished.write_text("torn")
    assert best_of([RunFolder(path) for path in sorted((tmp_path / "study").iterdir())]) == finished[1]
    assert best_of([]) is None


def test_the_report_has_the_gallery_and_a_checkpoint_that_is_gone_is_told_in_a_line(
    run: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SIA_RUNS", str(tmp_path))
    assert gallery_of_study("nothing") is None
    shutil.copytree(run.path, tmp_path / "study" / run.name)
    made = gallery_of_study("study")
    assert made is not None and made.run == run.name and [one.study for one in runs_of("study")] == ["study"]
    done = Desk(tmp_path / "desk").call("report.py", "study", SIA_RUNS=str(tmp_path))
    assert done.returncode == 0 and not done.stderr
    report = Path(done.stdout.strip()).read_text()
    assert report.count("<audio") == 3 + sum(len(one.found) for one in made.image_to_speech)
    bare = Desk(tmp_path / "desk").call("report.py", "study", "--no-gallery", SIA_RUNS=str(tmp_path))
    assert "<audio" not in Path(bare.stdout.strip()).read_text()
    shutil.rmtree(tmp_path / "study" / run.name / "stages" / "1" / "checkpoints")
    assert gallery_of_study("study") is None
    assert capsys.readouterr().err.startswith("no gallery: ")
