"""The real command on a real Slurm cluster: what it shows while a job waits. Faults are in tests/faults."""

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from desk import Desk, job_of, values, wait_until

from sia.run.state import State, look
from sia.trackers.mlflow.mirror import note_file

pytestmark = [pytest.mark.slow, pytest.mark.slurm]


def in_queue(job: str) -> str:
    """The job's state, "" once it has left the queue."""
    return subprocess.run(["squeue", "-h", "-j", job, "-o", "%T"], capture_output=True, text=True).stdout.strip()


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    desk = Desk(tmp_path / "desk")
    yield desk
    jobs = [job_of(run) for run in desk.runs("tiny")]
    subprocess.run(["scancel", *[job for job in jobs if job]], capture_output=True)


def test_status_tells_where_a_job_waits(desk: Desk, corpus: Path) -> None:
    """A profile that the cluster takes and cannot start: the run is pending until it is cancelled."""
    desk.write("wide.yaml", {"partition": "dev", "nodes": 2, "sbatch": {"begin": "now+1hour"}})
    desk.write("tiny.yaml", {"experiment": values(corpus)})
    flags = ("--cluster", "slurm", "--profile", "wide.yaml", "--scheduler", "none")
    driver = desk.start("submit.py", "--grid", "tiny.yaml", *flags)
    (run,) = wait_until(lambda: desk.runs("tiny"), 60, desk.log)
    job = wait_until(lambda: job_of(run), 60, desk.log)
    wait_until(note_file(run).exists, 120, "MLflow's start, which a Ctrl-C would wait for")
    shown = desk.run("status.py", "tiny").stdout
    assert "pending" in shown and job in shown
    os.killpg(driver.pid, signal.SIGINT)
    assert driver.wait(30) == 130
    assert in_queue(job) == "PENDING", "a Ctrl-C leaves it there"
    subprocess.run(["scancel", job], timeout=30, check=True)
    wait_until(lambda: not in_queue(job), 30, "the cancelled job's end")
    assert look(run).state == State.LOST


def test_a_job_that_the_cluster_refuses_is_told_in_sias_words_alone(desk: Desk, corpus: Path) -> None:
    desk.write("wrong.yaml", {"partition": "nosuch"})
    desk.write("tiny.yaml", {"experiment": values(corpus)})
    done = desk.run("submit.py", "--grid", "tiny.yaml", "--cluster", "slurm", "--profile", "wrong.yaml", timeout=120)
    assert done.returncode == 1
    assert "invalid partition specified" in done.stderr and "Trial" not in done.stdout + done.stderr
    (run,) = desk.runs("tiny")
    assert look(run).state == State.FAILED and "invalid partition specified" in look(run).error
