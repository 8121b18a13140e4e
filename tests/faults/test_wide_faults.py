"""Two nodes of two ranks each: a run that nothing disturbs, one that loses a rank, and their driver killed."""

import os
import signal
from pathlib import Path

import pytest
import slurm_box as box
from desk import Desk, job_of, values

from sia.atomic import read_json
from sia.run.state import State

pytestmark = [pytest.mark.slow, pytest.mark.slurm, pytest.mark.timeout(1800)]


def test_the_driver_is_killed_and_a_rank_of_another_node(long_corpus: Path, tmp_path: Path) -> None:
    """The second submit attaches to the job that goes on, and submits again what the killed rank has ended."""
    desk = Desk(tmp_path / "desk")
    grid = {"experiment": values(long_corpus, stages=box.CHAIN[:1]), "grid": {"training.chunk_size": [1000, 1001]}}
    box.write_study(desk, grid, nodes=2, tasks_per_node=2)
    with box.submitted(desk, *box.NONE) as study:
        calm, struck = study.runs(2)
        with box.caught_in_mid_stage(calm) as undisturbed, box.caught_in_mid_stage(struck) as caught:
            study.driver.send_signal(signal.SIGKILL)
            assert study.driver.wait() == -signal.SIGKILL
            kill_a_rank_of_the_other_node(caught.job, caught.ranks)
        box.wait_for(lambda: not box.in_queue(caught.job), "the end of the job that lost a rank")
        assert not struck.finished.exists() and box.state(struck) in (State.LOST, State.RUNNING)
        with box.submitted(desk, *box.NONE) as again:
            again.reaches_its_end()
    assert box.jobs_that_trained(calm) == [undisturbed.job], "the same job was attached to"
    assert box.jobs_that_trained(struck) == [caught.job, job_of(struck)]
    for run in (calm, struck):
        box.assert_nothing_lost(desk, run)
        assert read_json(run.finished)["world_size"] == 4
    box.assert_same_bits(struck, calm)


def kill_a_rank_of_the_other_node(job: str, ranks: dict[int, int]) -> None:
    assert box.slurm("squeue", "-h", "-j", job, "-o", "%D %T") == "2 RUNNING" and len(ranks) == 4
    environments = box.processes_of(job)
    nodes = {rank: environments[pid]["SLURMD_NODENAME"] for rank, pid in ranks.items()}
    assert nodes[0] == nodes[1] != nodes[2] == nodes[3]
    os.kill(ranks[3], signal.SIGKILL)
