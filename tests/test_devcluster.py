"""The running Slurm cluster places tasks on two nodes."""

import subprocess

import pytest


@pytest.mark.slurm
def test_four_tasks_run_on_two_nodes() -> None:
    command = ["srun", "--nodes=2", "--ntasks-per-node=2", "--time=1", "printenv", "SLURMD_NODENAME"]
    answer = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    nodes = answer.stdout.split()
    assert len(nodes) == 4
    assert sorted(nodes.count(node) for node in set(nodes)) == [2, 2]
