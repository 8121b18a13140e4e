"""Slurm's own daemons die under a running job, on a cluster of the test's own, whose sacct says nothing, as many do."""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import slurm_box as box
from bare_cluster import bare_cluster
from desk import Desk, experiment, job_of, values

from sia.cluster.launch import Launch
from sia.cluster.profile import Profile
from sia.run.folder import RunFolder
from sia.run.lock import NOBODY_KNOWS, holder_of
from sia.sweep.chain import start_stage

pytestmark = [pytest.mark.slow, pytest.mark.slurm, pytest.mark.timeout(1800)]


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    with bare_cluster() as cluster, pytest.MonkeyPatch.context() as patch:
        started = cluster.up()
        assert started.returncode == 0, started.stderr
        patch.setenv("SLURM_CONF", str(cluster.conf))
        yield


@pytest.fixture(scope="module")
def undisturbed(long_corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """The run of one rank, trained in this process."""
    config = experiment(long_corpus, stages=box.CHAIN)
    run = RunFolder(tmp_path_factory.mktemp("undisturbed") / "tiny" / config.run_name)
    run.create(config)
    taken = {number: signal.getsignal(number) for number in (signal.SIGUSR2, signal.SIGTERM)}
    for number in (1, 2):
        start_stage(run, number, Launch("debug", Profile()))
    for number, handler in taken.items():
        signal.signal(number, handler)
    return run


@pytest.fixture
def desk(tmp_path: Path, long_corpus: Path) -> Desk:
    desk = Desk(tmp_path / "desk")
    box.write_study(desk, {"experiment": values(long_corpus, stages=box.CHAIN)}, chain_stages=False)
    return desk


def test_a_job_vanishes_then_a_node_daemon_and_the_controller(desk: Desk, undisturbed: RunFolder) -> None:
    """The next job trains on without either daemon; the driver waits until the controller takes the next stage."""
    with box.submitted(desk, *box.NONE) as study:
        (run,) = study.runs()
        with box.caught_in_mid_stage(run) as vanished:
            assert box.in_queue(vanished.job) == "RUNNING"
            box.send(signal.SIGKILL, box.processes_of(vanished.job))
        second = box.next_job(run, vanished.job)
        with box.caught_in_mid_stage(run) as caught:
            box.kill_daemon(f"slurmd.{box.slurm('squeue', '-h', '-j', second, '-o', '%N')}")
        # Caught after an epoch without the node's daemon.
        with box.caught_in_mid_stage(run):
            box.repair_cluster()
            assert box.in_queue(second) == "RUNNING"
            box.controller_saves(second)
            box.kill_daemon("slurmctld")
        box.wait_for(run.stage(1).done.exists, "the stage's end without the controller")
        box.wait_for(lambda: was_refused(run), "the next stage, submitted in vain")
        assert not run.stage(2).job.exists()
        box.repair_cluster()
        study.reaches_its_end()
    assert caught.job == second and box.restarts(second) == 0
    assert box.jobs_that_trained(run, 1) == [vanished.job, second], "one life of each job"
    assert box.jobs_that_trained(run, 2) == [job_of(run, 2)]
    box.assert_nothing_lost(desk, run)
    box.assert_same_bits(run, undisturbed)


def test_a_node_that_is_cut_off_while_its_job_lives_on(desk: Desk, undisturbed: RunFolder) -> None:
    """Slurm requeues the job on the other node: its former life must not write into the run of the next."""
    box.repair_cluster()
    with box.submitted(desk, *box.NONE) as study:
        (run,) = study.runs()
        with box.caught_in_mid_stage(run) as caught:
            node = box.slurm("squeue", "-h", "-j", caught.job, "-o", "%N")
            box.kill_daemon(f"slurmd.{node}")
            box.slurm("scontrol", "update", f"nodename={node}", "state=down", "reason=cut")
            former = caught.ranks[0]
            box.wait_for(lambda: (holder_of(run.lock) or NOBODY_KNOWS).pid != former, "the next life")
            assert box.state_of(former) == "T", "the former one is still there"
        box.wait_for(lambda: not box.alive(former), "the former life's end")
        study.reaches_its_end()
    assert box.restarts(caught.job) == 1 and box.jobs_that_trained(run, 1) == [caught.job, caught.job]
    box.assert_nothing_lost(desk, run)
    box.assert_same_bits(run, undisturbed)


def was_refused(run: RunFolder) -> bool:
    return "Unable to contact slurm controller" in (run.jobs / "submit.log").read_text()
