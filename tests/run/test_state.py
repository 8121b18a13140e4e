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
    yield Job(cluster="local", job_id=str(process.pid), host=socket.gethostname(), folder=str(run.jobs))
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


def test_waiting_is_a_stage_without_a_job(run):
    assert (look(run).state, look(run).stage) == (State.WAITING, 1)
    done(run)
    assert (look(run).state, look(run).stage) == (State.WAITING, 2)
    plan_stage(run, 2, experiment().stages[1], 3, 2)
    assert (look(run).state, look(run).stage) == (State.WAITING, 2)


def test_lost_is_a_job_that_left_without_a_word(run):
    submitted(run, gone(run))
    assert (look(run).state, look(run).stage) == (State.LOST, 1)
    assert look(run).job_id


def test_a_process_number_that_another_program_has_now_is_lost(run):
    submitted(run, changed(gone(run), job_id=str(os.getpid())))
    assert look(run).state == State.LOST


def test_a_zombie_is_lost(run):
    zombie = subprocess.Popen([sys.executable, "-c", "", str(run.jobs)])
    submitted(run, changed(gone(run), job_id=str(zombie.pid)))
    os.waitid(os.P_PID, zombie.pid, os.WEXITED | os.WNOWAIT)
    assert look(run).state == State.LOST
    zombie.wait()


def test_a_debug_job_that_died_is_lost(run):
    submitted(run, Job(cluster="debug", job_id="debug", host=socket.gethostname()))
    assert look(run).state == State.LOST


def test_failed_says_its_error(run, local_job):
    submitted(run, gone(run))
    failed(run)
    assert (look(run).state, look(run).error) == (State.FAILED, "loss is nan")


def test_failed_without_a_job_is_one_that_no_cluster_took(run):
    failed(run, error="sbatch: invalid partition")
    assert look(run).state == State.FAILED


def test_a_failure_of_an_earlier_stage_that_is_done_is_past(run):
    failed(run)
    done(run)
    assert look(run).state == State.WAITING


def test_pending_is_a_live_process_that_names_the_folder(run, local_job):
    submitted(run, local_job)
    assert (look(run).state, look(run).job_id) == (State.PENDING, local_job.job_id)


def test_pending_is_a_job_that_squeue_lists(run, squeue):
    squeue(0, stdout="16\\n17\\n18_3\\n")
    submitted(run, SLURM_JOB)
    assert look(run).state == State.PENDING
    assert is_in_queue(changed(SLURM_JOB, job_id="18_3"))


def test_a_pending_job_tells_what_slurm_waits_for(run, squeue):
    squeue(0, stdout="17|PENDING|Priority\\n18|PENDING|None\\n19|SUSPENDED|None\\n")
    submitted(run, SLURM_JOB)
    assert look(run).reason == "Priority"
    submitted(run, changed(SLURM_JOB, job_id="18"))
    assert look(run).reason == ""
    submitted(run, changed(SLURM_JOB, job_id="19"))
    assert (look(run).state, look(run).reason) == (State.PENDING, "SUSPENDED"), "one that gives no sign of life"


def test_a_colleagues_jobs_are_asked_for_too(run, squeue, tmp_path):
    squeue(0, stdout="17\\n", log=tmp_path / "asked")
    submitted(run, changed(SLURM_JOB, user=os.getuid()))
    assert look(run).state == State.PENDING
    submitted(run, changed(SLURM_JOB, user=4711))
    assert [look(run).state for _ in range(3)] == [State.PENDING] * 3
    asked = (tmp_path / "asked").read_text().splitlines()
    assert ["4711" in line for line in asked] == [False, True]


def test_a_run_that_no_cluster_took_yet_tells_why(run):
    write_json(run.launch, {"cluster": "slurm", "profile": {}, "refused": "AssocMaxSubmitJobLimit"})
    assert (look(run).state, look(run).error) == (State.WAITING, "AssocMaxSubmitJobLimit")


def test_a_queue_is_asked_once_for_many_looks(run, squeue, tmp_path):
    squeue(0, stdout="17\\n", log=tmp_path / "asked")
    submitted(run, SLURM_JOB)
    assert {look(run).state for _ in range(20)} == {State.PENDING}
    assert len((tmp_path / "asked").read_text().split()) == 1


def test_a_job_that_came_after_the_last_answer_is_asked_for_again(squeue, monkeypatch):
    monkeypatch.setattr("sia.run.queue.ASK_AGAIN_SECONDS_OF_THE_ABSENT", -1.0)
    squeue(0, stdout="16\\n")
    assert not is_in_queue(SLURM_JOB)
    squeue(0, stdout="16\\n17\\n")
    assert is_in_queue(SLURM_JOB)


def test_old_jobs_that_are_gone_are_asked_for_once(squeue, monkeypatch, tmp_path):
    monkeypatch.setattr("sia.run.queue.ASK_AGAIN_SECONDS_OF_THE_ABSENT", -1.0)
    squeue(0, stdout="16\\n", log=tmp_path / "asked")
    for number in range(17, 40):
        assert not is_in_queue(changed(SLURM_JOB, job_id=str(number), time=time.time() - 3600))
    assert len((tmp_path / "asked").read_text().split()) == 1
    assert not is_in_queue(changed(SLURM_JOB, time=time.time()))
    assert len((tmp_path / "asked").read_text().split()) == 2


def test_a_job_that_squeue_has_no_line_for_is_lost(run, squeue):
    squeue(0)
    submitted(run, SLURM_JOB)
    assert look(run).state == State.LOST


def test_a_queue_that_cannot_be_asked_counts_as_a_yes(run, squeue):
    squeue(1, stderr=CONTROLLER_IS_AWAY)
    submitted(run, SLURM_JOB)
    failed(run)
    assert look(run).state == State.PENDING


def test_a_host_without_squeue_counts_as_a_yes(run, tmp_path, monkeypatch):
    monkeypatch.setattr("sia.run.queue.QUEUE", Queue())
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    assert is_in_queue(SLURM_JOB)


@pytest.mark.slurm
def test_a_real_squeue_knows_no_job_of_such_a_number():
    assert not is_in_queue(changed(SLURM_JOB, job_id="99999999"))


def test_running_is_a_fresh_heartbeat_and_names_the_job(run):
    lock_of(run, age=STALE_SECONDS / 2, job_id="23", stage=2)
    assert (look(run).state, look(run).stage, look(run).job_id) == (State.RUNNING, 2, "23")


def test_running_by_a_real_lock(run):
    with HeartbeatLock(run.lock, job_id="23", stage=1):
        assert look(run).state == State.RUNNING
    assert look(run).state == State.WAITING


def test_an_old_heartbeat_is_no_writer(run):
    lock_of(run, age=STALE_SECONDS + 1)
    submitted(run, gone(run))
    assert look(run).state == State.LOST


def test_a_dead_process_of_this_host_is_no_writer_however_fresh_its_lock(run):
    lock_of(run, age=0, host=socket.gethostname(), pid=int(gone(run).job_id))
    assert look(run).state == State.WAITING


def test_stopped_says_by_whom(run):
    write_json(run.stopped, {"by": "asha", "epoch": 3, "value": 0.1})
    assert (look(run).state, look(run).error) == (State.STOPPED, "by asha")


def test_a_cancelled_run_is_being_ended_until_its_job_has_left(run, local_job):
    """The marker comes before the job's end."""
    write_json(run.stopped, {"by": "cancel"})
    submitted(run, local_job)
    lock_of(run, age=0)
    for state in (State.RUNNING, State.PENDING):
        found = look(run)
        assert (found.state, found.stopped_by, found.reason) == (state, "cancel", "being ended")
        run.lock.unlink(missing_ok=True)
    submitted(run, gone(run))
    assert (look(run).state, look(run).stopped_by, look(run).reason) == (State.STOPPED, "cancel", "")


@pytest.mark.parametrize("content", ["", "[]", '{"pid": "x"}'])
def test_a_damaged_lock_is_a_sign_of_life_until_it_is_old(run, content):
    submitted(run, changed(SLURM_JOB, cluster="debug"))
    run.lock.write_text(content)
    found = look(run)
    assert (found.state, found.job_id, found.reason) == (State.RUNNING, "17", "its lock cannot be read")
    os.utime(run.lock, (time.time() - STALE_SECONDS - 1,) * 2)
    assert look(run).state == State.LOST


def test_finished_is_the_marker(tmp_path):
    assert look(finish_run(tmp_path, "size", experiment())).state == State.FINISHED


def test_a_run_whose_test_split_was_not_measured_is_in_its_last_stage(tmp_path):
    run = finish_run(tmp_path, "size", experiment())
    run.finished.unlink()
    assert (current_stage(run), look(run).stage) == (2, 2)
    submitted(run, gone(run), 2)
    assert look(run).state == State.LOST


def test_a_restart_added_by_hand_comes_next(tmp_path):
    run = finish_run(tmp_path, "size", experiment())
    plan_stage(run, 3, Stage(epochs=1), 5, 4)
    run.finished.unlink()
    assert (look(run).state, look(run).stage) == (State.WAITING, 3)


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
        assert not is_in_queue(job) and not has_left(job)
        assert has_left(changed(job, host="elsewhere")) and has_left(changed(job, folder=str(run.path)))
        cancel_jobs([job])
        assert rank.wait(10) == -15 and pager.poll() is None
        assert has_left(job)
    finally:
        for process in (rank, pager):
            process.kill()
            process.wait()
