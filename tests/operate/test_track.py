"""jobs/track.py: MLflow from the run folders alone, runs that died closed in it, damaged ones told of."""

import os
import shutil
import socket
import sqlite3
import time
from html import escape
from pathlib import Path

import pytest
from desk import Desk
from written_runs import BEGAN, begin_run, end_stage, epoch_row, experiment, finish_run

from sia.atomic import read_json, write_json
from sia.operate.track import Tracked, close, track
from sia.report.write import write_report
from sia.run.folder import report_folder
from sia.run.records import Study
from sia.run.row_files import append_row, read_rows
from sia.trackers.mlflow.mirror import MlflowMirror, mirrored_at, note_file
from sia.trackers.mlflow.store import connect

STUDY, QUESTION = "size", "Does the seed matter?"
HERE = {"host": socket.gethostname(), "pid": os.getpid(), "token": "t", "stage": 1}
# Of a local job that has ended: no process has this number.
GONE = {"cluster": "local", "job_id": str(2**22 + 1), "host": socket.gethostname(), "folder": "/nowhere"}


@pytest.fixture
def runs(tmp_path):
    """One of each state, by its name."""
    states = ("finished", "running", "pending", "lost", "failed", "stopped", "waiting", "new")
    made = {}
    for seed, state in enumerate(states):
        config = experiment(**{"training.seed": seed})
        made[state] = (finish_run if state == "finished" else begin_run)(tmp_path / "runs", STUDY, config)
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
    made["new"].provenance.unlink()
    return made


@pytest.fixture
def finished(tmp_path):
    """Three finished runs, in the order in which they are mirrored."""
    made = [finish_run(tmp_path / "runs", STUDY, experiment(**{"training.seed": seed})) for seed in range(3)]
    Study(question=QUESTION).write(tmp_path / "runs" / STUDY / "study.json")
    return sorted(made, key=lambda run: run.name)


def trials(uri):
    client = connect(uri)
    found = client.search_runs([client.get_experiment_by_name(STUDY).experiment_id])
    return {one.data.tags["sia.run"].partition("/")[2]: one for one in found if one.data.tags["sia.kind"] == "trial"}


def statuses(uri, runs):
    found = trials(uri)
    return {state: found[run.name].info.status for state, run in runs.items() if run.name in found}


def all_rows(path):
    with sqlite3.connect(path) as database:
        tables = [name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        rows = {table: sorted(map(repr, database.execute(f"SELECT * FROM {table}"))) for table in tables}
    database.close()
    return rows


DEAD = {"lost": "FAILED", "failed": "FAILED", "stopped": "KILLED", "waiting": "KILLED"}
ALIVE = {"finished": "FINISHED", "running": "RUNNING", "pending": "RUNNING"}


def test_every_state_has_its_status_the_dead_say_why_and_twice_changes_nothing(uri, runs, tmp_path):
    assert track(STUDY, uri) == Tracked(STUDY, 7, 6 + 5, 4, num_new=1)
    assert statuses(uri, runs) == {**ALIVE, **DEAD}
    why = {state: trials(uri)[runs[state].name].data.tags.get("sia.ended", "") for state in (*ALIVE, *DEAD)}
    assert [state for state, text in why.items() if text] == list(DEAD)
    assert "left the queue" in why["lost"] and why["failed"] == "out of memory" and why["stopped"] == "stopped by asha"
    lost = trials(uri)[runs["lost"].name]
    assert lost.info.end_time == int((BEGAN + 60) * 1000), "the time of its last row"
    before = all_rows(tmp_path / "mlflow.db")
    assert sum(map(len, before.values())) > 100
    assert track(STUDY, uri) == Tracked(STUDY, 7, 11, 4, num_new=1)
    assert all_rows(tmp_path / "mlflow.db") == before


def test_a_living_driver_keeps_its_unfinished_runs_open(uri, runs, tmp_path, program):
    """Also one that waits in the queue."""
    marked = {"failed": "FAILED", "stopped": "KILLED"}
    lock = tmp_path / "runs" / STUDY / "driver.lock"
    write_json(lock, HERE)
    assert track(STUDY, uri).num_closed == 2
    assert statuses(uri, runs) == {**ALIVE, **dict.fromkeys(DEAD, "RUNNING"), **marked}
    lock.unlink()
    program("squeue", "echo 41")
    write_json(lock.with_name("driver.json"), {"cluster": "slurm", "job_id": "41", "time": time.time()})
    assert track(STUDY, uri).num_closed == 2


def test_a_submit_that_goes_on_opens_the_runs_again(uri, runs):
    """A submit mirrors without closing, after it removed the markers."""
    track(STUDY, uri)
    runs["failed"].stage(1).failed.unlink()
    runs["stopped"].stopped.unlink()
    MlflowMirror(STUDY, uri).sync(list(runs.values()))
    assert statuses(uri, runs) == {**ALIVE, **dict.fromkeys(DEAD, "RUNNING")}
    assert not [one for one in trials(uri).values() if "sia.ended" in one.data.tags]


def test_a_run_whose_folder_is_gone_is_closed_and_nobody_elses(uri, runs, tmp_path, monkeypatch):
    """Bob's runs have the same names, in a folder of the same path on another machine: here, one that was moved."""
    track(STUDY, uri)
    bob = tmp_path / "bob"
    shutil.copytree(tmp_path / "runs", bob)
    monkeypatch.setenv("SIA_RUNS", str(bob))
    assert track(STUDY, uri).num_gone == 0
    shutil.rmtree(bob / STUDY / runs["running"].name)
    assert track(STUDY, uri).num_gone == 1 and track(STUDY, uri).num_gone == 0
    client = connect(uri)
    found = client.search_runs([client.get_experiment_by_name(STUDY).experiment_id], "tags.`sia.kind` = 'trial'")
    named = {
        one.data.tags["sia.folder"]: one for one in found if one.data.tags["sia.run"].endswith(runs["running"].name)
    }
    ours, theirs = named[str(runs["running"].path)], named[str(bob / STUDY / runs["running"].name)]
    assert (ours.info.status, theirs.info.status) == ("RUNNING", "KILLED")
    assert theirs.info.end_time == int((BEGAN + 60) * 1000) and "folder is gone" in theirs.data.tags["sia.ended"]
    shutil.rmtree(bob / STUDY)
    assert Desk(tmp_path).call("track.py", STUDY, "--uri", uri, SIA_RUNS=str(bob)).returncode == 0


def test_the_report_is_artifacts_of_one_run_to_which_the_experiment_leads(uri, finished, tmp_path):
    client, page = connect(uri), write_report(STUDY)
    for content in ("<p>one", "<p>two", "<p>two"):
        page.write_text(content)
        assert track(STUDY, uri).troubles == ()
        study = client.get_experiment_by_name(STUDY)
        (report,) = client.search_runs([study.experiment_id], "tags.`sia.kind` = 'report'")
        held = client.download_artifacts(report.info.run_id, page.name, str(tmp_path))
        assert (Path(held).read_text(), report.info.status) == (content, "FINISHED")
    place = f"(#/experiments/{study.experiment_id}/runs/{report.info.run_id}/artifacts/report.html)"
    assert all(place in one.data.tags["mlflow.note.content"] for one in trials(uri).values()) and len(trials(uri)) == 3
    told = study.tags["mlflow.note.content"], report.data.tags["mlflow.note.content"]
    assert all(part in text for text in told for part in (QUESTION, "finds the right image among ten for 50.0 %"))
    assert place in told[0]
    before = all_rows(tmp_path / "mlflow.db")
    assert track(STUDY, uri).troubles == () and all_rows(tmp_path / "mlflow.db") == before


def test_a_run_leads_to_a_report_that_a_living_driver_did_not_know_of(uri, finished):
    driver = MlflowMirror(STUDY, uri)
    driver.sync(finished)
    write_report(STUDY)
    track(STUDY, uri)
    append_row(finished[0].metrics, {**read_rows(finished[0].metrics)[-1], "time": BEGAN + 900})
    driver.sync(finished)
    write_report(STUDY)
    driver.keep_report(report_folder(STUDY))
    told = [one.data.tags["mlflow.note.content"] for one in trials(uri).values()]
    assert [text.count("artifacts/report.html)") for text in told] == [1, 1, 1]


def test_what_a_fault_keeps_from_a_report_is_made_up_for(uri, finished, monkeypatch):
    track(STUDY, uri)
    write_report(STUDY)
    with monkeypatch.context() as away:
        away.setattr("sia.trackers.mlflow.report.describe", fails)
        assert "no answer" in track(STUDY, uri).troubles[0]
    assert track(STUDY, uri).troubles == ()
    assert "finds the right image" in connect(uri).get_experiment_by_name(STUDY).tags["mlflow.note.content"]


def fails(*_):
    raise OSError("no answer")


def test_a_description_that_is_too_long_for_mlflow_stays_ours(uri, finished, tmp_path):
    for question in ("Why? " * 3000, "Why?"):
        Study(question=question).write(tmp_path / "runs" / STUDY / "study.json")
        write_report(STUDY)
        assert track(STUDY, uri).troubles == ()
    client = connect(uri)
    study = client.get_experiment_by_name(STUDY)
    (report,) = client.search_runs([study.experiment_id], "tags.`sia.kind` = 'report'")
    for tags in (study.tags, report.data.tags):
        assert tags["mlflow.note.content"].startswith("# Why?\n"), tags["mlflow.note.content"][:100]


def test_report_py_hands_its_report_over(uri, finished, tmp_path):
    assert track(STUDY, uri).num_runs == 3
    done = Desk(tmp_path).call(
        "report.py", STUDY, "--no-gallery", SIA_RUNS=str(tmp_path / "runs"), MLFLOW_TRACKING_URI=uri
    )
    client, experiment = connect(uri), connect(uri).get_experiment_by_name(STUDY).experiment_id
    (report,) = client.search_runs([experiment], "tags.`sia.kind` = 'report'")
    assert done.returncode == 0 and "report.html" in [file.path for file in client.list_artifacts(report.info.run_id)]


def test_of_two_peoples_reports_the_experiment_leads_to_each(uri, finished, tmp_path, monkeypatch):
    write_report(STUDY)
    track(STUDY, uri)
    monkeypatch.setenv("SIA_RUNS", str(tmp_path / "bob" / "runs"))
    finish_run(tmp_path / "bob" / "runs", STUDY, experiment())
    write_report(STUDY)
    track(STUDY, uri)
    client = connect(uri)
    study = client.get_experiment_by_name(STUDY)
    reports = client.search_runs([study.experiment_id], "tags.`sia.kind` = 'report'")
    told = study.tags["mlflow.note.content"]
    assert len(reports) == 2 and all(f"runs/{one.info.run_id}/artifacts" in told for one in reports)
    assert "finds the right image" not in told, "each says what it found"


def test_a_report_leads_to_the_study_and_each_runs_page(uri, finished, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    assert track(STUDY, uri).num_runs == 3
    pages = [MlflowMirror(STUDY, uri).page_of(run) for run in finished]
    told = write_report(STUDY).read_text()
    assert all(f'<a href="{page}">' in told for page in pages) and len(set(pages)) == 3
    assert all(f'<a href="{escape(page)}"' in told for page in MlflowMirror(STUDY, uri).addresses(finished))


def test_cancel_and_clean_close_what_they_end(uri, runs, tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    MlflowMirror(STUDY, uri).sync(list(runs.values()))
    assert statuses(uri, runs)["lost"] == statuses(uri, runs)["waiting"] == "RUNNING"
    write_json(runs["lost"].stopped, {"by": "cancel"})
    assert close(STUDY, list(runs.values())) == [] and statuses(uri, runs)["lost"] == "KILLED"
    name = f"{STUDY}/{runs['waiting'].name}"
    done = Desk(tmp_path).call("clean.py", name, "--remove", "--yes", MLFLOW_TRACKING_URI=uri)
    assert done.returncode == 0 and "of which 1 were open and are closed" in done.stdout
    assert statuses(uri, runs)["waiting"] == "KILLED" and statuses(uri, runs)["pending"] == "RUNNING"


def test_a_database_that_was_deleted_is_filled_again(uri, finished, tmp_path, migrated_database):
    track(STUDY, uri)
    first = {name: (one.data.metrics, one.data.params, one.info.status) for name, one in trials(uri).items()}
    other = f"sqlite:///{shutil.copy(migrated_database, tmp_path / 'other.db')}"
    track(STUDY, other)
    assert {name: (one.data.metrics, one.data.params, one.info.status) for name, one in trials(other).items()} == first


def put(run, file, content):
    """The content in place of the file's, or a folder of its name, which is an error of the system to its readers."""
    path = run.path / file
    path.parent.mkdir(parents=True, exist_ok=True)
    if content is None:
        path.unlink(missing_ok=True)
        path.mkdir()
    else:
        path.write_text(content)


FINISHED = [
    ("metrics.jsonl", None),
    *(("finished.json", text) for text in (None, "{", "[1]", '"yes"')),
    *(("corpus.json", text) for text in (None, "{", "[1]")),
    *(("provenance.jsonl", text) for text in (None, "nonsense\n")),
    *(("stages/2/plan.json", text) for text in (None, "{", "[1]")),
    *(("stages/2/done.json", text) for text in (None, "{", "[1]")),
    *(("stages/3/plan.json", text) for text in ("{}", "[1]", '{"stage": {"epochs": "many"}}')),
    *(("run_id.json", text) for text in (None, "{", "[1]", "{}", '{"id": 7}')),
    *(("config.yaml", text) for text in ("model: [\n", "- 1\n")),
]
BEGUN = [
    *(("stages/1/job.json", text) for text in ("{}", "[1]", "{")),
    *(("stages/1/failed.json", text) for text in ("[1]", "{", None)),
    *(("stopped.json", text) for text in ("[1]", "{", "{}", None)),
]


def test_damaged_runs_are_named_with_their_files_and_hold_up_no_other(uri, finished, tmp_path, monkeypatch):
    monkeypatch.setattr("os.fsync", lambda descriptor: None)
    broken = []
    for seed, (file, content) in enumerate([*FINISHED, *BEGUN], start=10):
        make = finish_run if seed < 10 + len(FINISHED) else begin_run
        run = make(tmp_path / "runs", STUDY, experiment(**{"training.seed": seed}))
        put(run, file, content)
        broken.append(run.path / file)
    tracked = track(STUDY, uri)
    assert [sum(str(file) in line for line in tracked.troubles) for file in broken] == [1] * len(broken)
    assert len(tracked.troubles) == len(broken)
    assert not [line for line in tracked.troubles if "\n" in line or "MLflow at" in line]
    assert all(mirrored_at(run, uri)["rows"] == 6 for run in finished)


@pytest.mark.parametrize("content", ["{}", "[1]", "{", '{"tracking_uri": 7, "rows": "many"}'])
def test_a_damaged_note_of_the_mirror_is_written_anew(uri, finished, content):
    note_file(finished[0]).write_text(content)
    assert mirrored_at(finished[0], uri) is None
    assert track(STUDY, uri) == Tracked(STUDY, 3, 18, 0)
    assert mirrored_at(finished[0], uri)["rows"] == 6


def test_what_is_no_float_is_left_out_alone_and_a_driver_that_cannot_be_told_leaves_runs_open(uri, tmp_path):
    run = begin_run(tmp_path / "runs", STUDY, experiment(**{"training.seed": 9}))
    append_row(run.metrics, {**epoch_row(1, 1, 1, 0.1), "train/loss": 10**400})
    (tmp_path / "runs" / STUDY / "driver.json").write_text("[1]")
    tracked = track(STUDY, uri)
    assert tracked.num_runs == 1 and tracked.num_closed == 0
    assert len(tracked.troubles) == 1 and "driver" in tracked.troubles[0]


def test_the_command_says_a_line_a_study_goes_on_to_the_next_and_exits_with_1(tmp_path, finished, uri):
    put(finished[0], "finished.json", None)
    finish_run(tmp_path / "runs", "width", experiment())
    done = Desk(tmp_path).call("track.py", "--uri", uri)
    assert done.returncode == 1
    assert done.stdout.splitlines() == ["size: 2 of 3 runs, 12 rows, 0 closed", "width: 1 runs, 6 rows, 0 closed"]
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"error: size: {finished[0].name}: {finished[0].finished}: ")


def test_a_terminal_shows_how_far_it_has_come(uri, finished, capsys, monkeypatch):
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "80")
    track(STUDY, uri)
    shown = capsys.readouterr().out
    assert f"{STUDY}: runs" in shown and "3/3" in shown


def test_the_command_prints_nothing_that_it_did_not_do(tmp_path, finished, uri):
    """An earlier mirroring is no proof of this one."""
    assert track(STUDY, uri).num_rows == 18 and read_json(note_file(finished[0]))["rows"] == 6
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{unused.getsockname()[1]}"
        done = Desk(tmp_path).call("track.py", "--uri", address, MLFLOW_HTTP_REQUEST_MAX_RETRIES="0")
    assert done.returncode == 1 and done.stdout.splitlines() == ["size: 0 of 3 runs, 0 rows, 0 closed"]
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"error: size: MLflow at {address}")


def test_an_unknown_study_or_store(tmp_path, finished):
    done = Desk(tmp_path).call("track.py", "sizes")
    assert done.returncode == 1 and "no study 'sizes' there; it has size" in done.stderr
    empty = Desk(tmp_path / "empty").call("track.py")
    assert empty.returncode == 1 and "no run there; it has none" in empty.stderr
    (tmp_path / "no.db").write_text("no database" * 100)
    done = Desk(tmp_path).call("track.py", "size", "--uri", f"sqlite:///{tmp_path / 'no.db'}")
    assert done.returncode == 1 and "not a database" in done.stderr


@pytest.mark.slow
def test_the_command_makes_the_database_that_is_not_there(tmp_path, finished):
    done = Desk(tmp_path).run("track.py", timeout=240)
    assert (done.returncode, done.stdout) == (0, "size: 3 runs, 18 rows, 0 closed\n"), done.stderr
    assert (tmp_path / "mlflow.db").exists()
