"""Slurm's own daemons die under a running job, and come back."""

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import stages
from desk import Desk, job_of, values, wait_until
from slurm_box import (
    CHAIN,
    alive,
    assert_nothing_lost,
    assert_same_bits,
    caught_in_mid_stage,
    ended_in_any_case,
    in_queue,
    jobs_that_trained,
    kill_daemon,
    repair_cluster,
    restarts,
    slurm,
    state_of,
)

from sia.run.folder import RunFolder
from sia.run.lock import NOBODY_KNOWS, holder_of

pytestmark = [pytest.mark.slow, pytest.mark.slurm]


@pytest.fixture
def desk(tmp_path: Path, long_corpus: Path) -> Desk:
    desk = Desk(tmp_path / "desk")
    desk.write("one.yaml", {"partition": "dev", "timeout_min": 20})
    desk.write("tiny.yaml", {"experiment": values(long_corpus, stages=CHAIN)})
    return desk


def test_a_node_daemon_and_then_the_controller(desk: Desk, undisturbed: RunFolder) -> None:
    """The job trains on without either; the driver waits until the controller takes the next stage."""
    flags = ("--cluster", "slurm", "--profile", "one.yaml", "--scheduler", "none")
    driver = desk.start("submit.py", "--grid", "tiny.yaml", *flags)
    with ended_in_any_case(desk, "tiny", driver):
        (run,) = wait_until(lambda: desk.runs("tiny"), 60, desk.log)
        job = without_the_node_daemon_then_the_controller(run)
        assert driver.wait(120) == 0, desk.log
    assert jobs_that_trained(run, 1) == [job] and restarts(job) == 0, "one life of one job"
    assert jobs_that_trained(run, 2) == [job_of(run, 2)]
    assert_nothing_lost(desk, run)
    assert_same_bits(run, undisturbed)


def without_the_node_daemon_then_the_controller(run: RunFolder) -> str:
    with caught_in_mid_stage(run) as caught:
        kill_daemon(f"slurmd.{slurm('squeue', '-h', '-j', caught.job, '-o', '%N')}")
    try:
        wait_until(lambda: len(stages.rows(run)) > caught.epochs, 60, "an epoch without the node's daemon")
        # Stopped, so that a fast machine does not reach the stage's end meanwhile.
        with caught_in_mid_stage(run, caught.epochs + 1):
            repair_cluster()
            assert in_queue(caught.job) == "RUNNING"
            kill_daemon("slurmctld")
        wait_until(run.stage(1).done.exists, 60, "the stage's end without the controller")
        wait_until(lambda: was_refused(run), 90, "the next stage, submitted in vain")
        assert not run.stage(2).job.exists()
    finally:
        repair_cluster()
    return caught.job


def test_a_node_that_is_cut_off_while_its_job_lives_on(desk: Desk, undisturbed: RunFolder) -> None:
    """Slurm requeues the job on the other node: its former life must not write into the run of the next."""
    flags = ("--cluster", "slurm", "--profile", "one.yaml", "--scheduler", "none")
    driver = desk.start("submit.py", "--grid", "tiny.yaml", *flags)
    with ended_in_any_case(desk, "tiny", driver), all_nodes_again():
        (run,) = wait_until(lambda: desk.runs("tiny"), 60, desk.log)
        with caught_in_mid_stage(run) as caught:
            node = slurm("squeue", "-h", "-j", caught.job, "-o", "%N")
            kill_daemon(f"slurmd.{node}")
            slurm("scontrol", "update", f"nodename={node}", "state=down", "reason=cut")
            former = caught.ranks[0]
            wait_until(lambda: (holder_of(run.lock) or NOBODY_KNOWS).pid != former, 90, "the next life")
            assert state_of(former) == "T", "the former one is still there"
        wait_until(lambda: not alive(former), 30, "the former life's end")
        assert driver.wait(120) == 0, desk.log
    assert restarts(caught.job) == 1 and jobs_that_trained(run, 1) == [caught.job, caught.job]
    assert_nothing_lost(desk, run)
    assert_same_bits(run, undisturbed)


@contextlib.contextmanager
def all_nodes_again() -> Iterator[None]:
    try:
        yield
    finally:
        subprocess.run(["scontrol", "update", "nodename=n1,n2", "state=resume"], capture_output=True)
        repair_cluster()


def was_refused(run: RunFolder) -> bool:
    return "Unable to contact slurm controller" in (run.jobs / "submit.log").read_text()
