"""The real command on a real Slurm cluster: what it shows while a job waits. Faults are in tests/faults."""

import os
import signal
from pathlib import Path

import pytest
import slurm_box as box
from desk import Desk, job_of, values

from sia.run.state import State, look

pytestmark = [pytest.mark.slow, pytest.mark.slurm]


def test_status_tells_where_a_job_waits(tmp_path: Path, corpus: Path) -> None:
    """A profile that the cluster takes and cannot start: the run is pending until it is cancelled."""
    desk = Desk(tmp_path / "desk")
    box.write_study(desk, {"experiment": values(corpus)}, nodes=2, sbatch={"begin": "now+1hour"})
    with box.submitted(desk, *box.NONE) as study:
        (run,) = study.runs()
        job = box.wait_for(lambda: job_of(run), f"job.json\n{desk.log}")
        shown = desk.call("status.py", "tiny").stdout
        assert "pending" in shown and job in shown
        os.killpg(study.driver.pid, signal.SIGINT)
        assert study.driver.wait() == 130
        assert box.in_queue(job) == "PENDING", "a Ctrl-C leaves it there"
        box.slurm("scancel", job)
        box.wait_for(lambda: not box.in_queue(job), "the cancelled job's end")
    assert box.state(run) == State.LOST


def test_a_job_that_the_cluster_refuses_is_told_in_sias_words_alone(tmp_path: Path, corpus: Path) -> None:
    desk = Desk(tmp_path / "desk")
    box.write_study(desk, {"experiment": values(corpus)}, partition="nosuch")
    with box.no_job_left(desk):
        done = desk.run(*box.SUBMIT, timeout=300)
    assert done.returncode == 1
    assert "invalid partition specified" in done.stderr and "Trial" not in done.stdout + done.stderr
    (run,) = desk.runs("tiny")
    assert look(run).state == State.FAILED and "invalid partition specified" in look(run).error
