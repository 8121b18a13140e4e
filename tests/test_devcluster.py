"""The cluster in a box: it places tasks on two nodes, mends what died, and leaves nothing behind and nobody hurt."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest
from bare_cluster import BareCluster, bare_cluster
from desk import wait_until

pytestmark = pytest.mark.slurm
DAEMONS = ["munged", "slurmctld", "slurmd.n1", "slurmd.n2"]


def test_four_tasks_run_on_two_nodes() -> None:
    command = ["srun", "--nodes=2", "--ntasks-per-node=2", "--time=1", "printenv", "SLURMD_NODENAME"]
    answer = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    nodes = answer.stdout.split()
    assert len(nodes) == 4
    assert sorted(nodes.count(node) for node in set(nodes)) == [2, 2]


@pytest.fixture
def cluster() -> Iterator[BareCluster]:
    with bare_cluster() as cluster:
        yield cluster


@pytest.fixture
def stranger(cluster: BareCluster) -> Iterator["subprocess.Popen[bytes]"]:
    """A process that is none of the cluster's daemons, even if it knows where the cluster lies."""
    command = [sys.executable, "-c", "import time; time.sleep(600)"]
    environment = {**os.environ, "SIA_DEVCLUSTER": str(cluster.folder)}
    process = subprocess.Popen(command, env=environment)
    yield process
    process.kill()
    process.wait()


def pids(cluster: BareCluster) -> dict[str, int]:
    return {path.stem: int(path.read_text()) for path in sorted(cluster.folder.glob("run/*.pid"))}


@pytest.mark.slow
def test_up_twice_a_dead_daemon_a_reboot_and_down_twice(
    cluster: BareCluster, stranger: "subprocess.Popen[bytes]"
) -> None:
    first = cluster.up()
    assert first.returncode == 0, first.stderr
    assert first.stdout.splitlines()[-1] == f"export SLURM_CONF={cluster.conf}"
    assert cluster.slurm("sinfo", "-h", "-N", "-o", "%N %t").split("\n") == ["n1 idle", "n2 idle"]
    started = pids(cluster)
    assert list(started) == DAEMONS
    assert cluster.command("status").returncode == 0
    again = cluster.up()
    assert (again.returncode, again.stdout, pids(cluster)) == (0, first.stdout, started)
    other = cluster.command("up")
    assert other.returncode == 1 and "accounting=no; run slurm/devcluster/down first" in other.stderr

    os.kill(started["slurmd.n2"], signal.SIGKILL)
    wait_until(lambda: "slurmd.n2 is dead" in cluster.command("status").stdout, 60, "the status of a dead daemon")
    assert cluster.up().returncode == 0
    mended = pids(cluster)
    assert [name for name in DAEMONS if mended[name] != started[name]] == ["slurmd.n2"]

    reboot(cluster, stranger)
    assert cluster.up().returncode == 0
    assert cluster.slurm("srun", "--time=1", "printenv", "SLURMD_NODENAME") in ("n1", "n2")
    assert not set(pids(cluster).values()) & {*mended.values(), stranger.pid}

    cluster.slurm("sbatch", "--output=/dev/null", "--wrap", "sleep 600")
    wait_until(lambda: cluster.slurm("squeue", "-h", "-o", "%T") == "RUNNING", 120, "a job")
    assert cluster.command("down").returncode == 0
    assert stranger.poll() is None and not cluster.folder.exists()
    wait_until(lambda: set(cluster.processes()) <= {stranger.pid}, 60, "the end of all processes, the job's too")
    assert cluster.command("down").returncode == 0, "nothing to end is no error"
    assert cluster.command("status").returncode == 1


@pytest.mark.slow
def test_down_after_a_reboot_leaves_strangers_alone(cluster: BareCluster, stranger: "subprocess.Popen[bytes]") -> None:
    assert cluster.up().returncode == 0
    reboot(cluster, stranger)
    answer = cluster.command("down")
    assert answer.returncode == 0, answer.stderr
    assert stranger.poll() is None and not cluster.folder.exists()
    assert set(cluster.processes()) <= {stranger.pid}


def reboot(cluster: BareCluster, stranger: "subprocess.Popen[bytes]") -> None:
    """The folder outlives the machine's daemons, and the numbers in its pid files belong to others by now."""
    for pid in pids(cluster).values():
        os.kill(pid, signal.SIGKILL)
    for path in cluster.folder.glob("run/*.pid"):
        path.write_text(f"{stranger.pid}\n")


def test_a_taken_port_is_named_and_nothing_is_made(cluster: BareCluster) -> None:
    port = int(cluster.environment["SIA_DEVCLUSTER_PORT"]) + 2  # slurmd.n2's
    with socket.create_server(("127.0.0.1", port)):
        answer = cluster.up()
    assert answer.returncode == 1
    assert answer.stderr == f"devcluster: port {port} is taken; set SIA_DEVCLUSTER_PORT to another\n"
    assert not cluster.folder.exists()


@pytest.mark.slow
def test_what_is_no_cluster_is_not_removed(cluster: BareCluster) -> None:
    cluster.folder.mkdir()
    (cluster.folder / "thesis.tex").write_text("all of it")
    answer = cluster.command("down")
    assert answer.returncode == 1 and "nothing removed" in answer.stderr
    assert (cluster.folder / "thesis.tex").exists()
