import subprocess
import sys
from pathlib import Path

import pytest
from written_runs import begin_run, end_stage, experiment, finish_run

from sia.atomic import write_json
from sia.errors import UserError
from sia.report.summary import summarise
from sia.report.write import write_report
from sia.run.state import State, look

REPORT = Path(__file__).parents[2] / "jobs" / "report.py"


@pytest.fixture
def runs(tmp_path, monkeypatch):
    monkeypatch.setenv("SIA_RUNS", str(tmp_path / "runs"))
    return tmp_path / "runs"


def test_a_report_lies_beside_the_runs(runs, tmp_path):
    finish_run(runs, "size", experiment())
    begin_run(runs, "size", experiment(**{"training.seed": 1}))
    report = write_report("size")
    folder = tmp_path / "reports" / "size"
    assert report == folder / "report.md"
    files = {"report.md", "table1.csv", "table2.csv", "runs.csv", "recall_by_epoch.png", "recall_by_size.png"}
    assert {path.name for path in folder.iterdir()} == files
    text = report.read_text()
    assert "2 runs: 1 finished, 1 unfinished." in text and "200 captions, 40 images" in text
    assert all(f"]({name})" in text for name in files if name.endswith(".png"))


def test_a_study_with_no_epoch_yet_has_a_report_without_figures(runs, tmp_path):
    begin_run(runs, "size", experiment())
    text = write_report("size", tmp_path / "elsewhere").read_text()
    assert "png" not in text and "0 of 5" in text


def test_states_of_runs(runs):
    failed, stopped = (begin_run(runs, "size", experiment(**{"training.seed": seed})) for seed in (1, 2))
    write_json(failed.stage(1).failed, {"error": "out of memory"})
    write_json(stopped.stopped, {"by": "asha"})
    assert [summarise(run).state for run in (failed, stopped)] == ["failed", "stopped"]


def test_a_runs_state_is_the_one_that_status_tells(runs):
    both = begin_run(runs, "size", experiment())
    write_json(both.stage(1).failed, {"error": "out of memory"})
    write_json(both.stopped, {"by": "cancel"})
    went_on = begin_run(runs, "size", experiment(**{"training.seed": 1}))
    write_json(went_on.stage(1).failed, {"error": "of a life before"})
    end_stage(went_on, 1)
    assert [look(run).state for run in (both, went_on)] == [State.STOPPED, State.WAITING]
    assert [summarise(run).state for run in (both, went_on)] == ["stopped", "unfinished"]


def test_an_unfinished_run_tells_its_best_stage_so_far(runs):
    run = finish_run(runs, "size", experiment())
    run.finished.unlink()
    summary = summarise(run)
    assert (summary.state, summary.best_epoch, summary.best_stage, summary.epochs_trained) == ("unfinished", 4, 2, 5)
    assert summary.seconds == 250.0 and summary.test == {}


def test_an_unknown_study_names_those_there_are(runs):
    finish_run(runs, "size", experiment())
    with pytest.raises(UserError, match="there are: size"):
        write_report("sise")


def test_the_command_prints_where_the_report_is(runs, tmp_path):
    finish_run(runs, "size", experiment())
    done = subprocess.run([sys.executable, REPORT, "size"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, f"{tmp_path / 'reports' / 'size' / 'report.md'}\n")
    done = subprocess.run([sys.executable, REPORT, "sise"], capture_output=True, text=True, check=False)
    assert done.returncode == 1 and done.stderr.startswith("error: sise: ") and done.stderr.count("\n") == 1
