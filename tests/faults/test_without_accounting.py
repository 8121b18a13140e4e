"""A cluster whose sacct says nothing, as many have: a job that vanishes is missed all the same."""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from bare_cluster import BareCluster, bare_cluster
from desk import Desk, values, wait_until
from slurm_box import (
    CHAIN,
    assert_nothing_lost,
    assert_same_bits,
    caught_in_mid_stage,
    ended_in_any_case,
    jobs_that_trained,
    processes_of,
    send,
)

from sia.run.folder import RunFolder

pytestmark = [pytest.mark.slow, pytest.mark.slurm]


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[BareCluster]:
    with bare_cluster() as cluster:
        started = cluster.up()
        assert started.returncode == 0, started.stderr
        monkeypatch.setenv("SLURM_CONF", str(cluster.conf))
        yield cluster


def test_a_job_that_vanishes(cluster: BareCluster, long_corpus: Path, undisturbed: RunFolder, tmp_path: Path) -> None:
    desk = Desk(tmp_path / "desk")
    desk.write("one.yaml", {"partition": "dev", "timeout_min": 20})
    desk.write("tiny.yaml", {"experiment": values(long_corpus, stages=CHAIN)})
    flags = ("--cluster", "slurm", "--profile", "one.yaml", "--scheduler", "none")
    driver = desk.start("submit.py", "--grid", "tiny.yaml", *flags)
    with ended_in_any_case(desk, "tiny", driver):
        (run,) = wait_until(lambda: desk.runs("tiny"), 60, desk.log)
        with caught_in_mid_stage(run) as caught:
            assert caught.job in cluster.slurm("squeue", "-h", "-o", "%A").split()
            send(signal.SIGKILL, processes_of(caught.job))
        assert driver.wait(180) == 0, desk.log
    first, second = jobs_that_trained(run)
    assert first == caught.job != second
    assert_nothing_lost(desk, run)
    assert_same_bits(run, undisturbed)
