"""Another tracker is a class and a variable: csv_tracker.py is all of it, and every command takes it."""

import csv
from pathlib import Path

import desk
from csv_tracker import CsvTracker
from written_runs import begin_run, experiment, finish_run

from sia.cluster.launch import Launch
from sia.cluster.profile import Profile
from sia.command import console
from sia.report.write import write_report
from sia.run.folder import RunFolder
from sia.sweep.drive import Sweep, submit_sweep
from sia.trackers.tracker import tracker_environment

CSV = "csv_tracker:CsvTracker"


def table(folder: Path, run: RunFolder) -> list[dict[str, str]]:
    with open(folder / run.study / f"{run.name}.csv", newline="") as stream:
        return list(csv.DictReader(stream))


def test_a_sweep_is_mirrored_by_it(tmp_path, corpus, monkeypatch, capsys):
    for name, value in {"SIA_TRACKER": CSV, "CSV_TABLES": tmp_path / "tables", "SIA_RUNS": tmp_path / "runs"}.items():
        monkeypatch.setenv(name, str(value))
    config = desk.experiment(corpus)
    run = RunFolder(tmp_path / "runs" / "size" / config.run_name)
    launches = {run.name: Launch("debug", Profile())}
    sweep = Sweep("size", [run], launches, "none", create=lambda: run.create(config))
    assert submit_sweep(sweep, console()) == 0
    rows = table(tmp_path / "tables", run)
    assert [row["epoch"] for row in rows if row["train/loss"]] == ["1", "2", "3"] and len(rows) == 4
    assert f"CSV: column -s, -t {tmp_path / 'tables'}" in capsys.readouterr().out
    assert not list(run.path.glob("*mlflow*"))


class Addresses(CsvTracker):
    def how_to_open(self, runs):
        return ["first log in", *(f"http://host/{number}" for number in range(3))]


def test_a_report_shows_any_number_of_its_addresses(tmp_path, monkeypatch):
    monkeypatch.setenv("SIA_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("SIA_TRACKER", f"{__name__}:Addresses")
    finish_run(tmp_path / "runs", "size", experiment())
    text = write_report("size").read_text()
    assert "In CSV (first log in)" in text and '<a href="http://host/2">http://host/2</a>' in text


def test_the_command_fills_it_anew_and_closes_what_died(tmp_path):
    configs = [experiment(**{"training.seed": seed}) for seed in (0, 1)]
    runs = [make(tmp_path / "runs", "size", one) for make, one in zip((finish_run, begin_run), configs, strict=True)]
    done = desk.Desk(tmp_path).call("track.py", "--uri", tmp_path / "tables", SIA_TRACKER=CSV)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "size: 2 runs, 6 rows, 1 closed\n"
    assert [len(table(tmp_path / "tables", run)) for run in runs] == [6, 0]


def test_a_name_that_is_no_trackers_is_told_in_one_line(tmp_path):
    for name in ("no_module:Tracker", "csv_tracker:NoTracker", "csv_tracker:CSV-1", "json:loads"):
        done = desk.Desk(tmp_path).call("doctor.py", SIA_TRACKER=name)
        assert done.returncode == 1 and len(done.stderr.splitlines()) == 1
        assert f"SIA_TRACKER={name}: " in done.stderr and "MODULE:CLASS" in done.stderr


def test_a_job_elsewhere_is_told_of_it(monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://host:5000")
    assert tracker_environment("size") == {"MLFLOW_TRACKING_URI": "http://host:5000"}
    monkeypatch.setenv("SIA_TRACKER", CSV)
    assert tracker_environment("size") == {"SIA_TRACKER": CSV}
