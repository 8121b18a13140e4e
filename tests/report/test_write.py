import pytest
from desk import Desk
from written_runs import begin_run, end_stage, experiment, finish_run

from sia.atomic import write_json
from sia.report.summary import summarise
from sia.report.write import PAGE, write_report
from sia.run.state import State, look


@pytest.fixture
def runs(tmp_path, monkeypatch):
    monkeypatch.setenv("SIA_RUNS", str(tmp_path / "runs"))
    return tmp_path / "runs"


def test_a_report_lies_beside_the_runs(runs, tmp_path):
    finish_run(runs, "size", experiment())
    begin_run(runs, "size", experiment(**{"training.seed": 1}))
    done = Desk(tmp_path).call("report.py", "size")
    report = tmp_path / "reports" / "size" / "report.html"
    assert (done.returncode, done.stdout) == (0, f"{report}\n")
    tables = {"table1.csv", "table2.csv", "runs.csv", "table1.tex", "table2.tex"}
    assert {path.name for path in report.parent.iterdir()} == {*tables, PAGE, "report.md", "recall_by_epoch.png"}
    for text in (report.read_text(), report.with_name("report.md").read_text()):
        assert (
            "2 runs: 1 finished, 1 unfinished." in text
            and "R@10 is the share of queries" in text
            and "200 captions, 40 images" in text
        )
    assert "](recall_by_epoch.png)" in text
    done = Desk(tmp_path).call("report.py", "sise")
    assert done.returncode == 1 and done.stderr.startswith("error: sise: ") and done.stderr.endswith("are: size\n")


def test_a_study_with_no_epoch_yet_has_a_report_without_figures(runs, tmp_path):
    begin_run(runs, "size", experiment())
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "recall_by_epoch.png").write_text("of an earlier report")
    text = write_report("size", tmp_path / "elsewhere").read_text()
    assert "<svg" not in text and "0 of 5" in text and not list((tmp_path / "elsewhere").glob("*.png"))


def test_a_page_that_is_damaged_is_written_anew(runs):
    finish_run(runs, "size", experiment())
    page = write_report("size")
    page.write_bytes(b"\xff\xfe torn")
    assert write_report("size").read_text().startswith("<!doctype html>")


def test_a_runs_state_is_the_one_that_status_tells(runs):
    failed, stopped, both, went_on = (
        begin_run(runs, "size", experiment(**{"training.seed": seed})) for seed in range(4)
    )
    for run in (failed, both, went_on):
        write_json(run.stage(1).failed, {"error": "out of memory"})
    for run in (stopped, both):
        write_json(run.stopped, {"by": "asha"})
    end_stage(went_on, 1)
    assert look(went_on).state == State.WAITING
    states = [summarise(run).state for run in (failed, stopped, both, went_on)]
    assert states == ["failed", "stopped", "stopped", "unfinished"]


def test_an_unfinished_run_tells_its_best_stage_so_far(runs):
    run = finish_run(runs, "size", experiment())
    run.finished.unlink()
    summary = summarise(run)
    assert (summary.state, summary.best_epoch, summary.best_stage, summary.epochs_trained) == ("unfinished", 4, 2, 5)
    assert summary.seconds == 250.0 and summary.test == {}
