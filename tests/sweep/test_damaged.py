"""One damaged run: the rest of its study is seen, cancelled, retried, cleaned and reported all the same."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from desk import Desk
from written_runs import begin_run, experiment, finish_run

from sia.atomic import write_json
from sia.run_folder import RunFolder


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
