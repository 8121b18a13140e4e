"""The real command on a real Slurm cluster: two nodes, a killed driver, a job that vanishes, a preempted one."""

import contextlib
import os
import signal
import subprocess
from pathlib import Path

import pytest
import torch
from desk import (
    Desk,
    assert_every_epoch_once,
    epoch_rows,
    in_mid_stage,
    job_of,
    mlflow_history,
    values,
    wait_until,
)

from sia.atomic import read_json
from sia.cluster.state import State, look
from sia.run_folder import RunFolder
from sia.tracking.metrics_log import read_rows

pytestmark = [pytest.mark.slow, pytest.mark.slurm]


def flags(profile: str, grid: str = "tiny.yaml") -> tuple[str, ...]:
    return "submit.py", "--grid", grid, "--cluster", "slurm", "--profile", profile


def slurm(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, timeout=30, check=True).stdout.strip()


def in_queue(job: str) -> str:
    """The job's state, "" once it has left the queue."""
    return subprocess.run(["squeue", "-h", "-j", job, "-o", "%T"], capture_output=True, text=True).stdout.strip()


def cancel_all(desk: Desk, study: str) -> None:
    """So that a test that failed leaves no job behind."""
    jobs = [job_of(run, number) for run in desk.runs(study) for number in (1, 2)]
    subprocess.run(["scancel", *[job for job in jobs if job]], capture_output=True)


def kill_processes_of(job: str) -> None:
    """As a machine that loses its power; scancel would ask the job to end before it kills it."""
    mark = f"SLURM_JOB_ID={job}".encode()
    for place in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if mark in (place / "environ").read_bytes().split(b"\0"):
                os.kill(int(place.name), signal.SIGKILL)


@pytest.fixture
def desk(tmp_path):
    desk = Desk(tmp_path / "desk")
    desk.write("two_nodes.yaml", {"partition": "dev", "nodes": 2, "timeout_min": 20})
    desk.write("two_tasks.yaml", {"partition": "dev", "tasks_per_node": 2, "timeout_min": 20})
    yield desk
    cancel_all(desk, "tiny")


def jobs_that_trained(run: RunFolder, stage: int) -> list[str]:
    return [row["job_id"] for row in read_rows(run.provenance) if row["stage"] == stage]


def test_two_nodes_and_a_driver_that_is_killed(desk, corpus):
    stages = [{"epochs": 12, "schedule": "calr"}, {"epochs": 2, "schedule": "calr", "lr_scale": 0.5}]
    desk.write("tiny.yaml", {"experiment": values(corpus, stages=stages)})
    driver = desk.start(*flags("two_nodes.yaml"))
    (run,) = wait_until(lambda: desk.runs("tiny"), 60, desk.log)
    wait_until(lambda: in_mid_stage(run), 120, f"an epoch\n{desk.log}")
    os.kill(driver.pid, signal.SIGKILL)
    driver.wait()
    job = job_of(run)
    assert run.lock.exists() and not run.stage(1).done.exists(), "the driver was killed in mid-stage"
    assert slurm("squeue", "-h", "-j", job, "-o", "%D %T") == "2 RUNNING", "the job goes on, on two nodes"

    again = desk.run(*flags("two_nodes.yaml"), timeout=240)
    assert again.returncode == 0, again.stdout + again.stderr
    assert look(run).state == State.FINISHED
    assert job_of(run) == job and jobs_that_trained(run, 1) == [job], "the same job was attached to"
    assert_every_epoch_once(run, 14)
    assert read_json(run.finished)["world_size"] == 2
    history = mlflow_history(desk.uri, "tiny")
    assert history[run.name]["train/loss"] == list(range(1, 15)) and len(history) == 3


def test_a_job_that_vanishes_and_one_that_is_preempted(desk, corpus):
    desk.write("tiny.yaml", {"experiment": values(corpus, stages=[{"epochs": 60, "schedule": "calr"}])})
    driver = desk.start(*flags("two_tasks.yaml"), "--scheduler", "none")
    (run,) = wait_until(lambda: desk.runs("tiny"), 60, desk.log)
    wait_until(lambda: in_mid_stage(run), 120, f"an epoch\n{desk.log}")

    first = job_of(run)
    kill_processes_of(first)
    wait_until(lambda: not in_queue(first), 60, "the job's end")
    before = epoch_rows(run)
    epochs_before = len(before)
    assert run.lock.exists() and not run.stage(1).done.exists(), "it vanished in mid-stage"
    assert not run.stage(1).failed.exists() and 0 < epochs_before < 60
    assert look(run).state in (State.LOST, State.RUNNING), "by the queue, or the heartbeat that is not old yet"
    second = wait_until(lambda: job_of(run) != first and job_of(run), 120, f"a new job\n{desk.log}")
    wait_until(lambda: len(epoch_rows(run)) > epochs_before, 120, f"another epoch\n{desk.log}")

    assert in_mid_stage(run) and in_queue(second) == "RUNNING"
    slurm("scancel", "--signal=USR2", second)
    saved = wait_until(lambda: mid_epoch(run), 60, "a checkpoint in mid-epoch")
    assert epochs_before < saved["epochs_done"] < 60
    before = [*before, *epoch_rows(run)[epochs_before:]]
    wait_until(lambda: in_queue(second) == "PENDING" or restarts(second), 60, "the requeue")
    assert driver.wait(180) == 0, desk.log
    assert restarts(second) == 1, "the same job came back"
    assert look(run).state == State.FINISHED and job_of(run) == second
    assert jobs_that_trained(run, 1) == [first, second, second]
    assert_every_epoch_once(run, 60)
    assert epoch_rows(run)[: len(before)] == before, "no epoch was trained again"
    assert progress(run)[0]["step"] == 60 * 12, "no step was taken twice"
    history = mlflow_history(desk.uri, "tiny")
    assert history[run.name]["train/loss"] == list(range(1, 61)) and len(history) == 2


def progress(run: RunFolder) -> tuple[dict, int]:
    """How far last.pt is: the stage's progress, and the next batch of its epoch."""
    content = torch.load(run.stage(1).last, weights_only=True)
    return content["progress"], content["sampler"]["next_batch"]


def mid_epoch(run: RunFolder) -> dict | None:
    """The progress in last.pt where it was saved in mid-epoch."""
    saved, next_batch = progress(run)
    return saved if next_batch > 0 else None


def restarts(job: str) -> int:
    shown = subprocess.run(["scontrol", "show", "job", job], capture_output=True, text=True).stdout
    return int(shown.partition("Restarts=")[2].split()[0]) if "Restarts=" in shown else 0


def test_status_tells_where_a_job_waits(desk, corpus):
    """A profile that the cluster takes and cannot start: the run is pending until it is cancelled."""
    desk.write("wide.yaml", {"partition": "dev", "nodes": 2, "sbatch": {"begin": "now+1hour"}})
    desk.write("tiny.yaml", {"experiment": values(corpus)})
    driver = desk.start(*flags("wide.yaml"), "--scheduler", "none")
    (run,) = wait_until(lambda: desk.runs("tiny"), 60, desk.log)
    job = wait_until(lambda: job_of(run), 60, desk.log)
    wait_until(run.mirror.exists, 120, "MLflow's start, which a Ctrl-C would wait for")
    shown = desk.run("status.py", "tiny").stdout
    assert "pending" in shown and job in shown
    os.killpg(driver.pid, signal.SIGINT)
    assert driver.wait(30) == 130
    assert in_queue(job) == "PENDING", "a Ctrl-C leaves it there"
    slurm("scancel", job)
    wait_until(lambda: not in_queue(job), 30, "the cancelled job's end")
    assert look(run).state == State.LOST
