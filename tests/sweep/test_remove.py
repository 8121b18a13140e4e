"""Runs and studies are deleted as a whole, on purpose, and never while anybody works on them."""

import json
from pathlib import Path

import pytest
from desk import Desk
from written_runs import begin_run, experiment, finish_run

from sia.atomic import write_json
from sia.lock import HeartbeatLock


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    desk = Desk(tmp_path / "desk")
    finish_run(desk.folder / "runs", "size", experiment())
    begin_run(desk.folder / "runs", "size", experiment(**{"training.seed": 1}))
    return desk


def test_nothing_goes_unless_it_is_told_to(desk: Desk) -> None:
    before = desk.runs("size")
    assert before[0].name in desk.run("clean.py", "size", "--remove", "--dry-run").stdout
    assert "nothing was done" in desk.run("clean.py", "size", "--remove").stderr
    assert desk.run("clean.py", "--remove", "--yes").returncode == 2, "which?"
    assert desk.runs("size") == before


def test_a_run_and_then_the_study(desk: Desk) -> None:
    first, second = desk.runs("size")
    write_json(first.path.parent / "driver.json", {"cluster": "local", "job_id": "1", "host": "gone", "folder": "x"})
    done = desk.run("clean.py", first.name, "--remove", "--yes")
    assert done.returncode == 0 and "1 runs deleted" in done.stdout and "MLflow keeps its rows" in done.stdout
    assert desk.runs("size") == [second]
    assert desk.run("clean.py", "size", "--remove", "--yes").returncode == 0
    assert list((desk.folder / "runs").iterdir()) == []


def test_a_run_at_work_or_driven_stays(desk: Desk) -> None:
    first, second = desk.runs("size")
    with HeartbeatLock(second.lock, job_id="17", stage=1):
        done = desk.run("clean.py", second.name, "--remove", "--yes")
        assert done.returncode == 1 and "it is running or pending; end it first" in done.stderr
    with HeartbeatLock(first.path.parent / "driver.lock"):
        done = desk.run("clean.py", second.name, "--remove", "--yes")
        assert done.returncode == 1 and "driven by process" in done.stderr
    assert desk.runs("size") == [first, second]


def test_a_run_that_was_marked_as_stopped_stays_while_its_job_holds_it(desk: Desk) -> None:
    _, second = desk.runs("size")
    write_json(second.stopped, {"by": "cancel"})
    with HeartbeatLock(second.lock, job_id="17", cluster="slurm", stage=1):
        done = desk.run("clean.py", second.name, "--remove", "--yes")
        assert done.returncode == 1 and "it is running or pending; end it first" in done.stderr
        shown = desk.run("status.py", "size", "--json").stdout
        (run,) = [one for one in json.loads(shown)[0]["runs"] if one["run"] == second.name]
        assert (run["state"], run["job_id"], run["reason"]) == ("running", "17", "being ended")
    assert second.config.exists()
    assert desk.run("clean.py", second.name, "--remove", "--yes").returncode == 0
