"""Which run of a study the gallery is of."""

import shutil
from pathlib import Path

import pytest
import written_runs
from desk import Desk
from markupsafe import Markup

from sia.gallery.of_study import best_of, gallery_of_study, kept_gallery
from sia.report.write import write_report
from sia.run.folder import RunFolder
from sia.run.records import Finished


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
    assert made is not None and f"Run {run.name}, best checkpoint" in made
    done = Desk(tmp_path / "desk").call("report.py", "study", SIA_RUNS=str(tmp_path))
    assert done.returncode == 0 and not done.stderr
    report = Path(done.stdout.strip()).read_text()
    assert report.count("<audio") == made.count("<audio") > 3
    bare = Desk(tmp_path / "desk").call("report.py", "study", "--no-gallery", SIA_RUNS=str(tmp_path))
    assert "<audio" not in Path(bare.stdout.strip()).read_text()
    shutil.rmtree(tmp_path / "study" / run.name / "stages" / "1" / "checkpoints")
    assert gallery_of_study("study") is None
    assert capsys.readouterr().err.startswith("no gallery: ")


def test_a_report_keeps_its_gallery_while_the_same_checkpoint_is_the_best(
    run: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SIA_RUNS", str(tmp_path / "runs"))
    copy = RunFolder(Path(shutil.copytree(run.path, tmp_path / "runs" / "study" / run.name)))
    assert "<audio" not in write_report("study").read_text()
    made = gallery_of_study("study")
    assert made is not None and made in write_report("study", gallery=made).read_text()
    # Checkpoints may go meanwhile; what was made of them stays true.
    shutil.rmtree(copy.stage(1).path / "checkpoints")
    assert made in write_report("study").read_text() and kept_gallery(write_report("study"), [copy]) == made
    assert "<audio" not in write_report("study", gallery=Markup("")).read_text()
    write_report("study", gallery=made)
    finished = Finished.read(copy.finished)
    assert finished is not None
    finished.model_copy(update={"seconds": finished.seconds + 1}).write(copy.finished)
    assert "<audio" not in write_report("study").read_text(), "trained anew"
