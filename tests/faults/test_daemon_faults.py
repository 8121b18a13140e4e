"""Slurm's own daemons die under a running job, on a cluster of the test's own, whose sacct says nothing, as many do."""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from bare_cluster import bare_cluster
from desk import Desk, experiment, job_of, values
from slurm_box import (
    CHAIN,
    NONE,
    alive,
    assert_nothing_lost,
    assert_same_bits,
    caught_in_mid_stage,
    in_queue,
    jobs_that_trained,
    kill_daemon,
    next_job,
    processes_of,
    repair_cluster,
    restarts,
    send,
    slurm,
    state_of,
    submitted,
    wait_for,
    write_study,
)

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
    config = experiment(long_corpus, stages=CHAIN)
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
    write_study(desk, {"experiment": values(long_corpus, stages=CHAIN)}, chain_stages=False)
    return desk


def test_a_job_vanishes_then_a_node_daemon_and_the_controller(desk: Desk, undisturbed: RunFolder) -> None:
    """The next job trains on without either daemon; the driver waits until the controller takes the next stage."""
    with submitted(desk, *NONE) as study:
        (run,) = study.runs()
        with caught_in_mid_stage(run) as vanished:
            assert in_queue(vanished.job) == "RUNNING"
            send(signal.SIGKILL, processes_of(vanished.job))
        second = next_job(run, vanished.job)
        with caught_in_mid_stage(run) as caught:
            kill_daemon(f"slurmd.{slurm('squeue', '-h', '-j', second, '-o', '%N')}")
        # Caught after an epoch without the node's daemon.
        with caught_in_mid_stage(run):
            repair_cluster()
            assert in_queue(second) == "RUNNING"
            kill_daemon("slurmctld")
        wait_for(run.stage(1).done.exists, "the stage's end without the controller")
        wait_for(lambda: was_refused(run), "the next stage, submitted in vain")
        assert not run.stage(2).job.exists()
        repair_cluster()
        study.reaches_its_end()
    assert caught.job == second and restarts(second) == 0
    assert jobs_that_trained(run, 1) == [vanished.job, second], "one life of each job"
    assert jobs_that_trained(run, 2) == [job_of(run, 2)]
    assert_nothing_lost(desk, run)
    assert_same_bits(run, undisturbed)


def test_a_node_that_is_cut_off_while_its_job_lives_on(desk: Desk, undisturbed: RunFolder) -> None:
    """Slurm requeues the job on the other node: its former life must not write into the run of the next."""
    repair_cluster()
    with submitted(desk, *NONE) as study:
        (run,) = study.runs()
        with caught_in_mid_stage(run) as caught:
            node = slurm("squeue", "-h", "-j", caught.job, "-o", "%N")
            kill_daemon(f"slurmd.{node}")
            slurm("scontrol", "update", f"nodename={node}", "state=down", "reason=cut")
            former = caught.ranks[0]
            wait_for(lambda: (holder_of(run.lock) or NOBODY_KNOWS).pid != former, "the next life")
            assert state_of(former) == "T", "the former one is still there"
        wait_for(lambda: not alive(former), "the former life's end")
        study.reaches_its_end()
    assert restarts(caught.job) == 1 and jobs_that_trained(run, 1) == [caught.job, caught.job]
    assert_nothing_lost(desk, run)
    assert_same_bits(run, undisturbed)


def was_refused(run: RunFolder) -> bool:
    return "Unable to contact slurm controller" in (run.jobs / "submit.log").read_text()
