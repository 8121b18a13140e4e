"""Which runs a driver goes on with: one driver a study, what ended before it, and what a silent Slurm had."""

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from desk import Desk, values
from desk import experiment as of_desk
from written_runs import begin_run, experiment, write_finished

from sia.atomic import write_json, write_text
from sia.cluster.launch import Launch
from sia.cluster.profile import Profile
from sia.errors import UserError
from sia.run.driver import OWN_JOB, driver_status, driving
from sia.run.folder import RunFolder
from sia.run.lock import NOBODY_KNOWS, HeartbeatLock, holder_of
from sia.run.queue import Queue
from sia.run.state import RunStatus, State, look
from sia.sweep import chain
from sia.sweep.chain import MAX_LOSSES, Losses, follow_run
from sia.sweep.drive import Sweep, drive, schedule
from sia.sweep.take_up import take_up

LOCAL = Launch("local", Profile())


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunFolder:
    monkeypatch.setenv("SIA_RUNS", str(tmp_path / "runs"))
    return begin_run(tmp_path / "runs", "size", experiment())


def write_lock(path: Path, holder: dict[str, object]) -> None:
    write_text(path, json.dumps(holder))


def sweep(run: RunFolder) -> Sweep:
    return Sweep("size", [run], {run.name: LOCAL}, "none")


def taken_up_by(run: RunFolder, asha: bool = False) -> None:
    take_up("size", [run], "local", by_name=False, asha=asha)


def test_the_longest_runs_come_first(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = [(3, 32), (4, 64), (3, 64)]
    shapes = [{"model.gru_layers": layers, "model.latent_size": width} for layers, width in sizes]
    runs = [begin_run(run.path.parents[1], "size", experiment(**shape)) for shape in shapes]
    followed: list[RunFolder] = []
    monkeypatch.setattr("sia.sweep.drive.follow_run", lambda one, *_: followed.append(one))
    assert schedule(Sweep("size", runs, {one.name: LOCAL for one in runs}, "none")) == {}
    assert followed == [runs[1], runs[2], runs[0]]


def test_a_second_driver_is_refused(run: RunFolder) -> None:
    with driving("size"), pytest.raises(UserError, match="study size is already driven"), driving("size"):
        pass
    with driving("size"):
        pass


def test_a_requeued_driver_takes_over_from_its_former_life(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whose heartbeat is fresh, on another host: it cannot be asked."""
    monkeypatch.setattr("sia.run.lock.HEARTBEAT_SECONDS", 0.1)
    lock = run.path.parent / "driver.lock"
    write_lock(lock, {"host": "node3", "pid": 7, "token": "t", "job_id": "41", "cluster": "slurm"})
    with pytest.raises(UserError, match="already driven"), driving("size"):
        pass
    monkeypatch.setenv(OWN_JOB, "41")
    with driving("size"):
        assert (holder_of(lock) or NOBODY_KNOWS).job_id == "41"


DRIVE = """
import time
from sia.run.driver import driving
with driving("size"):
    print("drives", flush=True)
    time.sleep(60)
"""


def test_a_driver_that_was_stalled_leaves_the_study_to_its_successor(run: RunFolder) -> None:
    command = [sys.executable, "-c", DRIVE]
    stalled = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert stalled.stdout is not None and stalled.stdout.readline() == "drives\n"
    write_lock(run.path.parent / "driver.lock", {"host": "elsewhere", "pid": 7, "token": "t"})
    _, said = stalled.communicate(timeout=20)
    assert stalled.returncode == 1 and "another driver has taken the study over" in said
    assert (holder_of(run.path.parent / "driver.lock") or NOBODY_KNOWS).host == "elsewhere"


def written(path: Path, age: float, **values: object) -> None:
    """A marker that was written so many seconds ago, by a host whose clock is whatever `time` says."""
    write_json(path, values)
    os.utime(path, (path.stat().st_mtime - age,) * 2)


@pytest.mark.parametrize("skew", [0.0, -3600.0, 3600.0])
@pytest.mark.parametrize(("own", "age", "taken_up"), [("", 5, True), ("41", 5, False), ("41", 500, True)])
def test_what_ended_since_a_driver_was_asked_for_stays_ended(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch, own: str, age: float, taken_up: bool, skew: float
) -> None:
    """Whoever wrote the markers, and whoever asked for the driver, on a host whose clock is an hour off."""
    monkeypatch.setenv(OWN_JOB, own)
    wrong = time.time() + skew
    monkeypatch.setattr("time.time", lambda: wrong - 2 * skew)
    written(run.path.parent / "driver.json", 100, job_id="41", cluster="slurm", time=wrong)
    written(run.stopped, age, by="cancel", time=wrong)
    taken_up_by(run)
    assert run.stopped.exists() is not taken_up
    run.stopped.unlink(missing_ok=True)
    written(run.stage(1).failed, age, error="loss is nan", time=wrong)
    taken_up_by(run)
    assert run.stage(1).failed.exists() is not taken_up


@pytest.mark.parametrize(("age", "state"), [(5, State.LOST), (60, State.WAITING)])
def test_what_was_lost_a_while_ago_is_submitted_at_once_and_reads_so(run: RunFolder, age: float, state: State) -> None:
    """Of a job that has just left, files may still come."""
    written(run.stage(1).job, age, cluster="local", job_id="4194305", host=socket.gethostname(), folder="/runs")
    taken_up_by(run)
    assert look(run).state == state


def test_a_lost_stage_that_is_being_submitted_again_is_not_lost(run: RunFolder) -> None:
    written(run.stage(1).job, 5, cluster="local", job_id="4194305", host=socket.gethostname(), folder="/runs")
    assert look(run).state == State.LOST
    with HeartbeatLock(run.submission):
        assert look(run).state == State.WAITING


def test_a_rehearsal_is_not_trained(run: RunFolder) -> None:
    with pytest.raises(UserError, match="a rehearsal"):
        drive(Sweep(f"{run.study}.rehearsal", [run], {run.name: LOCAL}))


def test_asha_leaves_what_it_gave_up_and_takes_up_what_a_person_cancelled(run: RunFolder) -> None:
    for by, scheduler, taken_up in (("asha", "asha", False), ("cancel", "asha", True), ("asha", "tune", True)):
        written(run.stopped, 5, by=by)
        taken_up_by(run, asha=scheduler == "asha")
        assert run.stopped.exists() is not taken_up, (by, scheduler)


def test_a_run_that_is_being_ended_holds_up_no_driver(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its job has the lock still: it is running, and nobody goes on with it."""
    monkeypatch.setattr("sia.sweep.drive._in_threads", lambda sweep, runs: {run.name: "followed" for run in runs})
    with HeartbeatLock(run.lock, job_id="17", stage=1):
        assert schedule(sweep(run)) == {run.name: "followed"}
        write_json(run.stopped, {"by": "cancel"})
        assert look(run).state == State.RUNNING
        follow_run(run, LOCAL, lambda row: None)
        assert schedule(sweep(run)) == {}


def lost(losses: Losses, progress: object, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether a loss that has lasted is answered by a new submission."""
    monkeypatch.setattr(chain, "GRACE_SECONDS", 0.0)
    return losses.too_long(RunStatus(State.LOST, 1), progress)


def test_losses_with_progress_are_borne_however_many(monkeypatch: pytest.MonkeyPatch) -> None:
    losses = Losses()
    assert all(lost(losses, (0, saved_at), monkeypatch) for saved_at in range(3 * MAX_LOSSES))
    assert all(lost(losses, (0, 99), monkeypatch) for _ in range(MAX_LOSSES))
    with pytest.raises(UserError, match=f"lost {MAX_LOSSES + 1} times without progress"):
        lost(losses, (0, 99), monkeypatch)


def test_a_file_server_that_is_away_for_a_moment_ends_no_chain(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    write_finished(run, {})
    answers, really = [OSError(116, "Stale file handle"), OSError(116, "Stale file handle")], chain.look

    def look(run: RunFolder) -> RunStatus:
        if answers:
            raise answers.pop()
        return really(run)

    monkeypatch.setattr(chain, "look", look)
    monkeypatch.setattr(chain, "POLL_SECONDS", 0.0)
    follow_run(run, LOCAL, lambda row: None)
    assert not answers
    answers = [OSError(116, "Stale file handle")] * 3
    monkeypatch.setattr(chain, "PATIENCE_SECONDS", -1.0)
    with pytest.raises(OSError, match="Stale"):
        follow_run(run, LOCAL, lambda row: None)


JOB = {"cluster": "slurm", "job_id": "17", "host": "login", "folder": "/runs"}


@pytest.fixture
def silent(run: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunFolder:
    """Pending as job 17 of a Slurm that cannot be asked any more: this host has no squeue."""
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    for place in ("sia.run.queue", "sia.cluster.end_jobs"):
        monkeypatch.setattr(f"{place}.QUEUE", Queue())
    write_json(run.stage(1).job, {**JOB, "time": time.time()})
    write_json(run.path.parent / "driver.json", {**JOB, "job_id": "16"})
    return run


def taken_up(run: RunFolder, cluster: str, by_name: bool) -> State:
    take_up(run.study, [run], cluster, by_name, asha=False)  # type: ignore[arg-type]
    return look(run).state


def test_who_asks_for_another_cluster_by_name_takes_the_run_over(
    silent: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    write_json(silent.stage(1).failed, {"error": "loss is nan"})
    os.utime(silent.stage(1).failed, (0, 0))
    assert driver_status("size").lives
    assert taken_up(silent, "local", by_name=True) == State.WAITING
    assert not driver_status("size").lives
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 2 and f"size/{silent.name}: taken over from job 17 of a Slurm that does not answer" in said[1]


def test_who_was_given_this_machine_waits_and_is_told_so(silent: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    assert taken_up(silent, "local", by_name=False) == State.PENDING
    said = capsys.readouterr().err
    assert "waits for job 17 of a Slurm that does not answer; python jobs/" in said
    assert "--cluster local takes it over" in said


def test_slurm_itself_waits(silent: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    assert taken_up(silent, "slurm", by_name=True) == State.PENDING
    assert capsys.readouterr().err == ""


def test_a_job_that_gives_a_sign_of_life_keeps_its_run(silent: RunFolder) -> None:
    with HeartbeatLock(silent.lock, job_id="17", stage=1):
        assert taken_up(silent, "local", by_name=True) == State.RUNNING


def test_a_slurm_that_answers_is_believed(silent: RunFolder, tmp_path: Path) -> None:
    squeue = tmp_path / "empty" / "squeue"
    squeue.parent.mkdir()
    squeue.write_text("#!/bin/sh\necho 17\n")
    squeue.chmod(0o755)
    assert taken_up(silent, "local", by_name=True) == State.PENDING


@pytest.mark.slow
def test_a_study_that_was_begun_on_slurm_is_finished_here(tmp_path: Path, corpus: Path) -> None:
    desk = Desk(tmp_path / "desk")
    desk.write("tiny.yaml", {"experiment": values(corpus)})
    config = of_desk(corpus)
    run = RunFolder(desk.folder / "runs" / "tiny" / config.run_name)
    run.create(config)
    write_json(run.stage(1).job, JOB)
    done = desk.run("submit.py", "--grid", "tiny.yaml", "--cluster", "debug", PATH=str(tmp_path))
    assert done.returncode == 0 and look(run).state == State.FINISHED, done.stdout + done.stderr
    assert "taken over from job 17" in done.stderr
