"""Two nodes of two ranks each: a run that nothing disturbs, one that loses a rank, and their driver killed."""

import os
import signal
from pathlib import Path

import pytest
from desk import Desk, job_of, values, wait_until
from slurm_box import (
    CHAIN,
    assert_nothing_lost,
    assert_same_bits,
    caught_in_mid_stage,
    ended_in_any_case,
    in_queue,
    jobs_that_trained,
    processes_of,
    slurm,
)

from sia.atomic import read_json
from sia.run.state import State, look

pytestmark = [pytest.mark.slow, pytest.mark.slurm]
SUBMIT = ("submit.py", "--grid", "tiny.yaml", "--cluster", "slurm", "--profile", "wide.yaml")


def test_the_driver_is_killed_and_a_rank_of_another_node(long_corpus: Path, tmp_path: Path) -> None:
    """The second submit attaches to the job that goes on, and submits again what the killed rank has ended."""
    desk = Desk(tmp_path / "desk")
    desk.write("wide.yaml", {"partition": "dev", "nodes": 2, "tasks_per_node": 2, "timeout_min": 20})
    two = {"training.chunk_size": [1000, 1001]}
    desk.write("tiny.yaml", {"experiment": values(long_corpus, stages=CHAIN), "grid": two})
    driver = desk.start(*SUBMIT)
    with ended_in_any_case(desk, "tiny", driver):
        calm, struck = wait_until(lambda: len(desk.runs("tiny")) == 2 and desk.runs("tiny"), 60, desk.log)
        with caught_in_mid_stage(calm) as undisturbed, caught_in_mid_stage(struck) as caught:
            driver.send_signal(signal.SIGKILL)
            assert driver.wait() == -signal.SIGKILL
            kill_a_rank_of_the_other_node(caught.job, caught.ranks)
        wait_until(lambda: not in_queue(caught.job), 60, "the end of the job that lost a rank")
        assert not struck.finished.exists() and look(struck).state in (State.LOST, State.RUNNING)
        again = desk.run(*SUBMIT, timeout=240)
        assert again.returncode == 0, again.stdout + again.stderr
    assert jobs_that_trained(calm) == [undisturbed.job], "the same job was attached to"
    assert jobs_that_trained(struck) == [caught.job, job_of(struck)]
    for run in (calm, struck):
        assert_nothing_lost(desk, run)
        assert read_json(run.finished)["world_size"] == 4
    assert_same_bits(struck, calm)


def kill_a_rank_of_the_other_node(job: str, ranks: dict[int, int]) -> None:
    assert slurm("squeue", "-h", "-j", job, "-o", "%D %T") == "2 RUNNING" and len(ranks) == 4
    environments = processes_of(job)
    nodes = {rank: environments[pid]["SLURMD_NODENAME"] for rank, pid in ranks.items()}
    assert nodes[0] == nodes[1] != nodes[2] == nodes[3]
    os.kill(ranks[3], signal.SIGKILL)
