"""One damaged run: the rest of its study is seen, cancelled, retried, cleaned and reported all the same."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from desk import Desk, values
from written_runs import begin_run, experiment, finish_run

from sia.atomic import write_json
from sia.run.folder import RunFolder


def truncate_config(run: RunFolder) -> None:
    run.config.write_bytes(run.config.read_bytes()[:150])


def unknown_key(run: RunFolder) -> None:
    run.config.write_text(run.config.read_text() + "telepathy: true\n")


def empty_job(run: RunFolder) -> None:
    run.stage(1).job.write_text("{}")


DAMAGES = (truncate_config, unknown_key, empty_job)


@pytest.fixture(params=DAMAGES, ids=lambda one: one.__name__)
def desk(request: pytest.FixtureRequest, tmp_path: Path) -> Desk:
    """A finished run, a failed one, and a damaged one."""
    desk = Desk(tmp_path / "desk")
    finish_run(desk.folder / "runs", "size", experiment())
    failed = begin_run(desk.folder / "runs", "size", experiment(**{"training.seed": 1}))
    write_json(failed.stage(1).failed, {"error": "loss is nan", "rank": 0, "job_id": "1", "time": 1.0})
    damaged = finish_run(desk.folder / "runs", "size", experiment(**{"training.seed": 2}))
    damaged.finished.unlink()
    (damaged.stage(1).done).unlink()
    damage: Callable[[RunFolder], None] = request.param
    damage(damaged)
    return desk


def test_the_others_are_seen_and_left_to_work_with(desk: Desk) -> None:
    (damaged,) = [run for run in desk.runs("size") if not run.finished.exists() and not run.stage(1).failed.exists()]
    whole = [run for run in desk.runs("size") if run.name != damaged.name]

    status = desk.run("status.py", "size")
    assert status.returncode == 0, status.stderr
    assert all(run.name in status.stdout for run in desk.runs("size")) and "damaged" in status.stdout
    states = {one["run"]: one["state"] for one in json.loads(desk.run("status.py", "--json").stdout)[0]["runs"]}
    assert states.pop(damaged.name) == "damaged" and sorted(states.values()) == ["failed", "finished"]

    for command in (("cancel.py", "size", "--yes"), ("clean.py", "size", "--dry-run")):
        done = desk.run(*command)
        assert f"size/{damaged.name}: left alone: " in done.stderr and "Traceback" not in done.stderr, command
    report = desk.run("report.py", "size")
    assert report.returncode == 0, report.stderr
    text = Path(report.stdout.strip()).read_text()
    assert all(run.name in text for run in whole)
    if damaged.stage(1).job.exists():
        return  # a report reads no job's record
    assert f"left out of the report: {damaged.name}" in report.stderr and "Damaged runs, left out" in text

    removed = desk.run("clean.py", damaged.name, "--remove", "--yes")
    assert removed.returncode == 0, removed.stderr
    assert desk.runs("size") == whole


@pytest.fixture
def two_studies(tmp_path: Path) -> Desk:
    desk = Desk(tmp_path / "desk")
    for study in ("depth", "size"):
        finish_run(desk.folder / "runs", study, experiment())
        begin_run(desk.folder / "runs", study, experiment(**{"training.seed": 1}))
    return desk


DRIVERS = ("[]", '{"cluster": "local", "job_id": "x"}')


@pytest.mark.parametrize("content", DRIVERS)
def test_a_damaged_record_of_a_driver_is_told_of_and_holds_up_no_other_study(two_studies: Desk, content: str) -> None:
    record = two_studies.folder / "runs" / "size" / "driver.json"
    record.write_text(content)
    shown = two_studies.run("status.py")
    assert shown.returncode == 0 and "depth: nobody drives it" in shown.stdout
    assert f"{record}: " in shown.stdout and "delete it" in shown.stdout
    for command in (("cancel.py", "size", "--yes"), ("clean.py", "size", "--remove", "--yes")):
        done = two_studies.run(*command)
        assert done.returncode == 1 and f"{record}: " in done.stderr and "Traceback" not in done.stderr, command
    assert len(two_studies.runs("size")) == 2
    assert two_studies.run("clean.py", "--dry-run").returncode == 0


@pytest.mark.parametrize(("name", "content"), [("driver.lock", ""), ("writer.lock", '{"pid": "x"}')])
def test_a_damaged_lock_is_held_while_it_is_young(two_studies: Desk, name: str, content: str) -> None:
    study = two_studies.folder / "runs" / "size"
    run = two_studies.runs("size")[1]
    lock = study / name if name == "driver.lock" else run.lock
    lock.write_text(content)
    shown = two_studies.run("status.py", "size", COLUMNS="160")
    assert shown.returncode == 0, shown.stderr
    assert ("its lock does not name" if name == "driver.lock" else "its lock cannot be read") in shown.stdout
    commands = {"cancel.py": ("size", "--yes"), "clean.py": ("size", "--remove", "--yes")}
    if name == "writer.lock":
        del commands["cancel.py"]  # it waits until the lock is old
    for command, arguments in commands.items():
        os.utime(lock)
        done = two_studies.run(command, *arguments)
        assert done.returncode == 1 and "Traceback" not in done.stderr, command
    os.utime(lock, (0, 0))
    done = two_studies.run("clean.py", "size", "--remove", "--yes")
    assert done.returncode == 0 and not study.exists(), done.stderr


@pytest.mark.slow
def test_a_damaged_run_holds_up_no_drive(tmp_path: Path, corpus: Path) -> None:
    desk = Desk(tmp_path / "desk")
    desk.write("tiny.yaml", {"experiment": values(corpus, stages=[{"epochs": 1}]), "grid": {"training.seed": [1, 2]}})
    command = ("submit.py", "--grid", "tiny.yaml", "--scheduler", "none", "--cluster", "debug")
    assert desk.run(*command).returncode == 0
    damaged, whole = desk.runs("tiny")
    damaged.stopped.write_text("[]")
    for run in (damaged, whole):
        run.finished.unlink()
    done = desk.run(*command)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert f"error: {damaged.name}: {damaged.stopped}: damaged" in done.stderr
    assert whole.finished.exists() and not damaged.finished.exists()
    assert desk.run("track.py", "tiny").returncode in (0, 1)
