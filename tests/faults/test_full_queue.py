"""A user who may have one job in the queue, as many clusters limit it, submits a study of two runs."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from desk import Desk, values, wait_until
from slurm_box import CHAIN, assert_nothing_lost, devcluster, ended_in_any_case, slurm

from sia.atomic import read_json
from sia.run.folder import RunFolder
from sia.run.state import State, look

pytestmark = [pytest.mark.slow, pytest.mark.slurm]


def limit_submissions(number: int) -> None:
    user = slurm("id", "-un")
    slurm("sacctmgr", "-i", "modify", "user", user, "set", f"MaxSubmitJobs={number}")


@pytest.fixture
def one_job() -> Iterator[None]:
    """-1 lifts the limit."""
    if not (devcluster() / "slurmdbd.conf").exists():
        pytest.skip("limits need a cluster with accounting: slurm/devcluster/up without --no-accounting")
    limit_submissions(1)
    yield
    limit_submissions(-1)


def test_a_run_waits_for_the_place_of_another(one_job: None, long_corpus: Path, tmp_path: Path) -> None:
    desk = Desk(tmp_path / "desk")
    desk.write("one.yaml", {"partition": "dev", "timeout_min": 20})
    desk.write("two.yaml", {"experiment": values(long_corpus, stages=CHAIN), "seeds": [0, 1]})
    flags = ("--cluster", "slurm", "--profile", "one.yaml", "--scheduler", "none")
    driver = desk.start("submit.py", "--grid", "two.yaml", *flags)
    with ended_in_any_case(desk, "two", driver):
        runs = wait_until(lambda: len(desk.runs("two")) == 2 and desk.runs("two"), 60, desk.log)
        waiting = wait_until(lambda: next(filter(is_refused, runs), None), 60, "a run that was not taken")
        assert look(waiting).state == State.WAITING and not waiting.stage(1).failed.exists()
        assert "SubmitJobLimit" in desk.run("status.py", "two").stdout
        assert driver.wait(240) == 0, desk.log
    for run in runs:
        assert_nothing_lost(desk, run)
    wait_until(lambda: not slurm("squeue", "-h", "--me"), 30, "an empty queue")


def is_refused(run: RunFolder) -> bool:
    return "SubmitJobLimit" in (read_json(run.launch) or {}).get("refused", "")
