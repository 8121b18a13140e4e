"""jobs/track.py: MLflow from the run folders alone, and the runs that died closed in it."""

import os
import shutil
import socket
import sqlite3
import time

import pytest
from desk import Desk
from written_runs import BEGAN, begin_run, end_stage, epoch_row, experiment, finish_run

from sia.atomic import write_json
from sia.operate.track import Tracked, track
from sia.run.metrics import append_row
from sia.trackers.mlflow.mirror import MlflowMirror
from sia.trackers.mlflow.store import connect

STUDY = "size"
HERE = {"host": socket.gethostname(), "pid": os.getpid(), "token": "t", "stage": 1}
# Of a local job that has ended: no process has this number.
GONE = {"cluster": "local", "job_id": str(2**22 + 1), "host": socket.gethostname(), "folder": "/nowhere"}


@pytest.fixture
def runs(tmp_path):
    """One of each state, by its name."""
    folder = tmp_path / "runs"
    states = ("finished", "running", "pending", "lost", "failed", "stopped", "waiting", "new")
    made = {}
    for seed, state in enumerate(states):
        config = experiment(**{"training.seed": seed})
        made[state] = (finish_run if state == "finished" else begin_run)(folder, STUDY, config)
        if state not in ("finished", "new", "pending"):
            append_row(made[state].metrics, epoch_row(1, 1, 1, 0.1 * seed))
    write_json(made["running"].lock, {**HERE, "job_id": "7"})
    write_json(made["running"].stage(1).job, GONE)
    write_json(made["pending"].stage(1).job, {**GONE, "job_id": str(os.getpid()), "folder": "python"})
    write_json(made["lost"].stage(1).job, GONE)
    write_json(made["failed"].stage(1).failed, {"error": "out of memory", "time": time.time()})
    write_json(made["stopped"].stopped, {"by": "asha"})
    end_stage(made["waiting"], 1)
    shutil.rmtree(made["new"].path / "stages")
    return made


def trials(uri):
    client = connect(uri)
    found = client.search_runs([client.get_experiment_by_name(STUDY).experiment_id])
    return {one.info.run_name: one for one in found if "sia.stage" not in one.data.tags}


def statuses(uri, runs):
    found = trials(uri)
    return {state: found[run.name].info.status for state, run in runs.items()}


def all_rows(path):
    with sqlite3.connect(path) as database:
        tables = [name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        rows = {table: sorted(map(repr, database.execute(f"SELECT * FROM {table}"))) for table in tables}
    database.close()
    return rows


DEAD = {"lost": "FAILED", "failed": "FAILED", "stopped": "KILLED", "waiting": "KILLED", "new": "KILLED"}
ALIVE = {"finished": "FINISHED", "running": "RUNNING", "pending": "RUNNING"}


def test_every_state_has_its_status_and_the_dead_say_why(uri, runs):
    assert track(STUDY, uri) == Tracked(STUDY, 8, 6 + 5, 5)
    assert statuses(uri, runs) == {**ALIVE, **DEAD}
    why = {state: trials(uri)[runs[state].name].data.tags.get("sia.ended", "") for state in runs}
    assert [state for state, text in why.items() if text] == list(DEAD)
    assert "left the queue" in why["lost"] and why["failed"] == "out of memory" and why["stopped"] == "stopped by asha"
    lost = trials(uri)[runs["lost"].name]
    assert lost.info.end_time == int((BEGAN + 60) * 1000), "the time of its last row"


def test_twice_changes_no_row_of_any_table(uri, runs, tmp_path):
    track(STUDY, uri)
    before = all_rows(tmp_path / "mlflow.db")
    assert sum(map(len, before.values())) > 100
    again = track(STUDY, uri)
    assert all_rows(tmp_path / "mlflow.db") == before
    assert again == Tracked(STUDY, 8, 11, 5)


def test_a_living_driver_keeps_its_unfinished_runs_open(uri, runs):
    write_json(runs["lost"].path.parent / "driver.lock", HERE)
    assert track(STUDY, uri).num_closed == 2
    marked = {"failed": "FAILED", "stopped": "KILLED"}
    assert statuses(uri, runs) == {**ALIVE, **dict.fromkeys(DEAD, "RUNNING"), **marked}


def test_a_submit_that_goes_on_opens_the_runs_again(uri, runs):
    """A submit mirrors without closing, after it removed the markers."""
    track(STUDY, uri)
    runs["failed"].stage(1).failed.unlink()
    runs["stopped"].stopped.unlink()
    MlflowMirror(STUDY, uri).sync(list(runs.values()))
    assert statuses(uri, runs) == {**ALIVE, **dict.fromkeys(DEAD, "RUNNING")}
    assert not [one for one in trials(uri).values() if "sia.ended" in one.data.tags]


def test_a_database_that_was_deleted_is_filled_again(uri, runs, tmp_path, migrated_database):
    track(STUDY, uri)
    first = {name: (one.data.metrics, one.data.params, one.info.status) for name, one in trials(uri).items()}
    other = f"sqlite:///{tmp_path / 'other.db'}"
    shutil.copy(migrated_database, tmp_path / "other.db")
    track(STUDY, other)
    assert {name: (one.data.metrics, one.data.params, one.info.status) for name, one in trials(other).items()} == first


def test_a_damaged_run_is_trouble_and_holds_up_no_other(uri, runs):
    runs["lost"].config.write_text("model: [\n")
    tracked = track(STUDY, uri)
    assert tracked == Tracked(STUDY, 7, 10, 4, 1, tracked.troubles)
    assert len(tracked.troubles) == 1 and "not valid YAML" in tracked.troubles[0]
    assert len(trials(uri)) == 7


@pytest.mark.slow
def test_the_command_on_no_database_says_a_line_a_study(tmp_path, runs):
    finish_run(tmp_path / "runs", "depth", experiment())
    desk = Desk(tmp_path)
    done = desk.run("track.py")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["depth: 1 runs, 6 rows, 0 closed", "size: 8 runs, 11 rows, 5 closed"]
    assert statuses(desk.uri, runs) == {**ALIVE, **DEAD}


def test_an_unknown_study_or_store(tmp_path, runs):
    desk = Desk(tmp_path)
    done = desk.run("track.py", "sizes")
    assert done.returncode == 1 and "no study 'sizes' there; it has size" in done.stderr
    empty = Desk(tmp_path / "empty").run("track.py")
    assert empty.returncode == 1 and "no run there; it has none" in empty.stderr
    (tmp_path / "no.db").write_text("no database" * 100)
    done = desk.run("track.py", "size", "--uri", f"sqlite:///{tmp_path / 'no.db'}")
    assert done.returncode == 1 and "not a database" in done.stderr and "Traceback" not in done.stderr


def test_a_study_whose_driver_waits_in_the_queue_stays_open(uri, runs, tmp_path, monkeypatch):
    squeue = tmp_path / "bin" / "squeue"
    squeue.parent.mkdir()
    squeue.write_text("#!/bin/sh\necho 41\n")
    squeue.chmod(0o755)
    monkeypatch.setenv("PATH", f"{squeue.parent}:{os.environ['PATH']}")
    write_json(tmp_path / "runs" / STUDY / "driver.json", {"cluster": "slurm", "job_id": "41", "time": time.time()})
    assert track(STUDY, uri).num_closed == 2, "those with a marker, failed and stopped, alone"
