"""One damaged run: the rest of its study is seen, cancelled, retried, cleaned and reported all the same."""

import json
import os
from pathlib import Path

import pytest
from desk import Desk, values
from written_runs import begin_run, experiment, finish_run

from sia.atomic import write_json

DAMAGES = {
    "config.yaml": lambda path: path.write_bytes(path.read_bytes()[:150]),
    "corpus.json": lambda path: path.write_text("{"),
    "finished.json": lambda path: path.write_text(""),
    "stages/1/job.json": lambda path: path.write_text("{}"),
    "stages/1/failed.json": lambda path: path.write_text("[]"),
    "stages/3/plan.json": lambda path: write_json(path, {"epochs": 3}),
    "launch.json": lambda path: path.mkdir(),
}
UNREAD_BY_STATUS, UNREAD_BY_REPORT = ("corpus.json",), ("stages/1/job.json", "launch.json")


@pytest.mark.parametrize("name", DAMAGES)
def test_the_others_are_seen_and_left_to_work_with(tmp_path: Path, name: str) -> None:
    """A finished run, a failed one, and a damaged one."""
    desk = Desk(tmp_path / "desk")
    finished = finish_run(desk.folder / "runs", "size", experiment())
    failed = begin_run(desk.folder / "runs", "size", experiment(**{"training.seed": 1}))
    write_json(failed.stage(1).failed, {"error": "loss is nan", "rank": 0, "job_id": "1", "time": 1.0})
    damaged = finish_run(desk.folder / "runs", "size", experiment(**{"training.seed": 2}))
    damaged.finished.unlink()
    damaged.stage(1).done.unlink()
    DAMAGES[name](damaged.path / name)

    if name not in UNREAD_BY_STATUS:
        status = desk.call("status.py", "size")
        assert status.returncode == 0 and "\n3 runs: 1 finished, 1 failed, 1 damaged\n" in status.stdout, status.stderr
        (error,) = [line for line in status.stdout.splitlines() if line.startswith(f"{damaged.name}: ")]
        assert str(damaged.path / name) in error and ("delete" in error or "make it readable" in error)
        states = {one["run"]: one["state"] for one in json.loads(desk.call("status.py", "--json").stdout)[0]["runs"]}
        assert states == {finished.name: "finished", failed.name: "failed", damaged.name: "damaged"}
        for command in (("cancel.py", "size", "--yes"), ("clean.py", "size", "--dry-run")):
            assert f"size/{damaged.name}: left alone: " in desk.call(*command).stderr, command
    report = desk.call("report.py", "size")
    text = Path(report.stdout.strip()).read_text()
    assert report.returncode == 0 and finished.name in text and failed.name in text, report.stderr
    if name not in UNREAD_BY_REPORT:
        assert f"left out of the report: {damaged.name}" in report.stderr and "Damaged runs, left out" in text
    removed = desk.call("clean.py", damaged.name, "--remove", "--yes")
    assert removed.returncode == 0, removed.stderr
    assert {run.name for run in desk.runs("size")} == {finished.name, failed.name}


@pytest.fixture
def two_studies(tmp_path: Path) -> Desk:
    desk = Desk(tmp_path / "desk")
    for study in ("depth", "size"):
        finish_run(desk.folder / "runs", study, experiment())
        begin_run(desk.folder / "runs", study, experiment(**{"training.seed": 1}))
    return desk


@pytest.mark.parametrize("content", ["[]", '{"cluster": "local", "job_id": "x"}'])
def test_a_damaged_record_of_a_driver_is_told_of_and_holds_up_no_other_study(two_studies: Desk, content: str) -> None:
    record = two_studies.folder / "runs" / "size" / "driver.json"
    record.write_text(content)
    shown = two_studies.call("status.py")
    assert shown.returncode == 0 and "depth: nobody drives it" in shown.stdout
    assert f"{record}: " in shown.stdout and "delete it" in shown.stdout
    for command in (("cancel.py", "size", "--yes"), ("clean.py", "size", "--remove", "--yes")):
        done = two_studies.call(*command)
        assert done.returncode == 1 and f"{record}: " in done.stderr, command
    assert len(two_studies.runs("size")) == 2
    assert two_studies.call("clean.py", "--dry-run").returncode == 0


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("driver.lock", "", "its lock does not name"),
        ("writer.lock", '{"pid": "x"}', "its lock cannot be read"),
    ],
)
def test_a_damaged_lock_is_held_while_it_is_young(two_studies: Desk, name: str, content: str, said: str) -> None:
    study = two_studies.folder / "runs" / "size"
    lock = study / name if name == "driver.lock" else two_studies.runs("size")[1].lock
    lock.write_text(content)
    shown = two_studies.call("status.py", "size", COLUMNS="160")
    assert shown.returncode == 0 and said in shown.stdout, shown.stderr
    if name == "driver.lock":  # for a run's, cancel waits until the lock is old
        assert two_studies.call("cancel.py", "size", "--yes").returncode == 1
    os.utime(lock)
    assert two_studies.call("clean.py", "size", "--remove", "--yes").returncode == 1
    os.utime(lock, (0, 0))
    done = two_studies.call("clean.py", "size", "--remove", "--yes")
    assert done.returncode == 0 and not study.exists(), done.stderr


@pytest.mark.slow
def test_a_damaged_run_holds_up_no_drive(tmp_path: Path, corpus: Path) -> None:
    desk = Desk(tmp_path / "desk")
    desk.write("tiny.yaml", {"experiment": values(corpus, stages=[{"epochs": 1}]), "grid": {"training.seed": [1, 2]}})
    command = ("submit.py", "--grid", "tiny.yaml", "--scheduler", "none", "--cluster", "debug")
    assert desk.run(*command, timeout=240).returncode == 0
    damaged, whole = desk.runs("tiny")
    damaged.stopped.write_text("[]")
    for run in (damaged, whole):
        run.finished.unlink()
    done = desk.run(*command, timeout=240)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert f"error: {damaged.name}: {damaged.stopped}: damaged" in done.stderr
    assert whole.finished.exists() and not damaged.finished.exists()
