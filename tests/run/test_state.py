"""The table of sia/run/README.md, row by row, on folders written by hand; live locks and processes are real."""

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from desk import wait_until
from written_runs import begin_run, experiment, finish_run, plan_stage, write_finished

from sia.atomic import write_json
from sia.cluster.end_jobs import cancel_jobs, has_left
from sia.config import Stage
from sia.run.folder import RunFolder
from sia.run.lock import STALE_SECONDS, HeartbeatLock
from sia.run.queue import Queue, is_in_queue
from sia.run.records import Job
from sia.run.state import State, current_stage, look

CONTROLLER_IS_AWAY = "slurm_load_jobs error: Unable to contact slurm controller (connect failure)"


@pytest.fixture
def run(tmp_path) -> RunFolder:
    """Planned, nothing submitted."""
    return begin_run(tmp_path, "size", experiment())


@pytest.fixture
def local_job(run):
    """A live process whose command line names the run's folder, as submitit's local controller does."""
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)", str(run.jobs)])
    job = Job(cluster="local", job_id=str(process.pid), host=socket.gethostname(), folder=str(run.jobs))
    wait_until(lambda: is_in_queue(job), 30, "its command line, which is empty for a moment")
    yield job
    process.kill()
    process.wait()


@pytest.fixture
def squeue(tmp_path, monkeypatch):
    """Puts an squeue into PATH that answers so."""

    monkeypatch.setattr("sia.run.queue.QUEUE", Queue())

    def answers(status: int, stdout: str = "", stderr: str = "", log: Path = Path("/dev/null")) -> None:
        fake = tmp_path / "bin" / "squeue"
        fake.parent.mkdir(exist_ok=True)
        fake.write_text(
            f"#!/bin/sh\necho x$* | tr -d ' ' >> {log}\nprintf '{stdout}'\nprintf '{stderr}' >&2\nexit {status}\n"
        )
        fake.chmod(0o755)
        monkeypatch.setenv("PATH", f"{fake.parent}:{os.environ['PATH']}")

    return answers


SLURM_JOB = Job(cluster="slurm", job_id="17", host="login", folder="/runs")


def changed(job: Job, **values: Any) -> Job:
    return job.model_copy(update=values)


def submitted(run: RunFolder, job: Job, number: int = 1) -> None:
    changed(job, time=time.time()).write(run.stage(number).job)


def failed(run: RunFolder, number: int = 1, error: str = "loss is nan") -> None:
    write_json(run.stage(number).failed, {"error": error, "rank": 0, "job_id": "17", "time": time.time()})


def done(run: RunFolder, number: int = 1) -> None:
    write_json(run.stage(number).done, {"best_epoch": 1, "best_value": 0.1, "seconds": 1.0, "epochs": 1})


def gone(run: RunFolder) -> Job:
    """A local job whose process has ended."""
    process = subprocess.Popen(["true"])
    process.wait()
    return Job(cluster="local", job_id=str(process.pid), host=socket.gethostname(), folder=str(run.jobs))


def lock_of(run: RunFolder, age: float, **who) -> None:
    run.lock.write_text(json.dumps({"host": "n1", "pid": 1, "token": "t", "job_id": "17", "stage": 1, **who}))
    os.utime(run.lock, (time.time() - age, time.time() - age))


def test_new_is_a_config_alone(tmp_path):
    run = RunFolder(tmp_path / "size" / experiment().run_name)
    run.create(experiment())
    assert (look(run).state, look(run).stage, look(run).job) == (State.NEW, 1, None)


def test_waiting_is_a_stage_without_a_job_and_tells_why_none_was_taken(run):
    assert (look(run).state, look(run).stage) == (State.WAITING, 1)
    failed(run)
    done(run)
    assert (look(run).state, look(run).stage) == (State.WAITING, 2), "the failure of a stage that is done is past"
    plan_stage(run, 2, experiment().stages[1], 3, 2)
    write_json(run.launch, {"cluster": "slurm", "profile": {}, "refused": "AssocMaxSubmitJobLimit"})
    assert (look(run).state, look(run).stage, look(run).error) == (State.WAITING, 2, "AssocMaxSubmitJobLimit")


def test_lost_is_a_job_that_left_without_a_word(run, squeue):
    left = gone(run)
    squeue(0)
    zombie = subprocess.Popen([sys.executable, "-c", "", str(run.jobs)])
    os.waitid(os.P_PID, zombie.pid, os.WEXITED | os.WNOWAIT)
    for job in (
        left,
        changed(left, job_id=str(os.getpid())),  # a number that another program has now
        changed(left, job_id=str(zombie.pid)),
        Job(cluster="debug", job_id="debug", host=socket.gethostname()),
        SLURM_JOB,
    ):
        submitted(run, job)
        assert (look(run).state, look(run).stage, look(run).job_id) == (State.LOST, 1, job.job_id)
    zombie.wait()


def test_failed_says_its_error_whether_or_not_a_cluster_took_its_job(run):
    failed(run, error="sbatch: invalid partition")
    assert (look(run).state, look(run).error) == (State.FAILED, "sbatch: invalid partition")
    submitted(run, gone(run))
    assert (look(run).state, look(run).error) == (State.FAILED, "sbatch: invalid partition")


@pytest.mark.parametrize(
    ("job_id", "why"), [("16", ""), ("17", "Priority"), ("18", ""), ("19", "SUSPENDED"), ("20_3", ""), ("21", "starts")]
)
def test_pending_is_a_job_that_squeue_lists_and_tells_what_it_waits_for(run, squeue, job_id, why):
    """Or that it was started, and gives no sign of life."""
    squeue(0, stdout="16\\n17|PENDING|Priority\\n18|PENDING|None\\n19|SUSPENDED|None\\n20_3\\n21|RUNNING|None\\n")
    submitted(run, changed(SLURM_JOB, job_id=job_id))
    assert (look(run).state, look(run).reason) == (State.PENDING, why)


def test_a_queue_is_asked_once_for_many_looks_and_again_for_a_colleague(run, squeue, tmp_path):
    squeue(0, stdout="17\\n", log=tmp_path / "asked")
    for user in (os.getuid(), 4711):
        submitted(run, changed(SLURM_JOB, user=user))
        assert {look(run).state for _ in range(20)} == {State.PENDING}
    asked = (tmp_path / "asked").read_text().splitlines()
    assert ["4711" in line for line in asked] == [False, True]


def test_a_job_that_came_after_the_last_answer_is_asked_for_again_and_an_old_one_is_not(squeue, monkeypatch, tmp_path):
    monkeypatch.setattr("sia.run.queue.ASK_AGAIN_SECONDS_OF_THE_ABSENT", -1.0)
    squeue(0, stdout="16\\n", log=tmp_path / "asked")
    for number in range(17, 40):
        assert not is_in_queue(changed(SLURM_JOB, job_id=str(number), time=time.time() - 3600))
    assert len((tmp_path / "asked").read_text().split()) == 1
    squeue(0, stdout="16\\n17\\n")
    assert is_in_queue(changed(SLURM_JOB, time=time.time()))


def test_a_queue_that_cannot_be_asked_counts_as_a_yes(run, squeue, tmp_path, monkeypatch):
    squeue(1, stderr=CONTROLLER_IS_AWAY)
    submitted(run, SLURM_JOB)
    failed(run)
    assert look(run).state == State.PENDING
    monkeypatch.setattr("sia.run.queue.QUEUE", Queue())
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    assert is_in_queue(SLURM_JOB)


@pytest.mark.slurm
def test_a_real_squeue_knows_no_job_of_such_a_number():
    assert not is_in_queue(changed(SLURM_JOB, job_id="99999999"))


def test_running_is_a_fresh_heartbeat_and_names_the_job(run):
    lock_of(run, age=STALE_SECONDS / 2, job_id="23", stage=2)
    assert (look(run).state, look(run).stage, look(run).job_id) == (State.RUNNING, 2, "23")
    lock_of(run, age=STALE_SECONDS + 1)
    assert look(run).state == State.WAITING
    lock_of(run, age=0, host=socket.gethostname(), pid=int(gone(run).job_id))
    assert look(run).state == State.WAITING, "a dead process of this host"
    with HeartbeatLock(run.lock, job_id="23", stage=1):
        assert look(run).state == State.RUNNING


@pytest.mark.parametrize("content", ["", "[]", '{"pid": "x"}'])
def test_a_damaged_lock_is_a_sign_of_life_until_it_is_old(run, content):
    submitted(run, changed(SLURM_JOB, cluster="debug"))
    run.lock.write_text(content)
    found = look(run)
    assert (found.state, found.job_id, found.reason) == (State.RUNNING, "17", "its lock cannot be read")
    os.utime(run.lock, (time.time() - STALE_SECONDS - 1,) * 2)
    assert look(run).state == State.LOST


def test_a_cancelled_run_is_being_ended_until_its_job_has_left(run, local_job):
    """The marker comes before the job's end."""
    write_json(run.stopped, {"by": "cancel", "epoch": 3, "value": 0.1})
    submitted(run, local_job)
    lock_of(run, age=0)
    for state in (State.RUNNING, State.PENDING):
        found = look(run)
        assert (found.state, found.stopped_by, found.reason) == (state, "cancel", "being ended")
        run.lock.unlink(missing_ok=True)
    submitted(run, gone(run))
    found = look(run)
    assert (found.state, found.stopped_by, found.error, found.reason) == (State.STOPPED, "cancel", "by cancel", "")


def test_finished_is_the_marker_and_without_it_the_last_stage_goes_on(tmp_path):
    run = finish_run(tmp_path, "size", experiment())
    assert look(run).state == State.FINISHED
    run.finished.unlink()
    assert (current_stage(run), look(run).stage) == (2, 2), "the test split was not measured"
    submitted(run, gone(run), 2)
    assert look(run).state == State.LOST
    plan_stage(run, 3, Stage(epochs=1), 5, 4)
    assert (look(run).state, look(run).stage) == (State.WAITING, 3), "a restart that was added by hand comes next"


def test_the_first_row_that_matches_wins(run, local_job):
    """All markers at once; take the first away, and the next row's state appears."""
    write_finished(run, {})
    write_json(run.stopped, {"by": "asha"})
    lock_of(run, age=0)
    submitted(run, local_job)
    failed(run)
    expected = [State.RUNNING, State.FINISHED, State.PENDING, State.STOPPED, State.FAILED, State.LOST, State.WAITING]
    take_away = [
        run.lock.unlink,
        run.finished.unlink,
        lambda: submitted(run, gone(run)),
        run.stopped.unlink,
        run.stage(1).failed.unlink,
        run.stage(1).job.unlink,
        run.stage(1).plan.unlink,
    ]
    found = []
    for remove in take_away:
        found.append(look(run).state)
        remove()
    assert found == expected
    assert look(run).state == State.NEW


def test_a_local_job_is_told_to_end_and_one_that_left_is_left_alone(run, local_job):
    process = int(local_job.job_id)
    cancel_jobs([local_job])
    os.waitid(os.P_PID, process, os.WEXITED | os.WNOWAIT)
    assert not is_in_queue(local_job)
    cancel_jobs([local_job])
    cancel_jobs([gone(run)])


def test_the_ranks_of_a_local_job_end_though_its_shell_has(run):
    """A process that names the folder but is not submitit's, such as a pager, is let live."""
    code = "import time; time.sleep(60)"
    rank = subprocess.Popen([sys.executable, "-c", code, "submitit.core._submit", str(run.jobs)])
    pager = subprocess.Popen([sys.executable, "-c", code, str(run.jobs)])
    try:
        job = gone(run)
        assert not is_in_queue(job)
        wait_until(lambda: not has_left(job), 30, "the rank's command line, which is empty for a moment")
        assert has_left(changed(job, host="elsewhere")) and has_left(changed(job, folder=str(run.path)))
        cancel_jobs([job])
        assert rank.wait(10) == -15 and pager.poll() is None
        assert has_left(job)
    finally:
        for process in (rank, pager):
            process.kill()
            process.wait()
