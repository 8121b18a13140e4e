"""A profile whose jobs may not be requeued: a job that is preempted is lost, and its driver submits another one."""

from pathlib import Path

import pytest
from desk import Desk, values, wait_until
from slurm_box import (
    CHAIN,
    assert_nothing_lost,
    assert_saved_in_mid_epoch,
    caught_in_mid_stage,
    ended_in_any_case,
    in_queue,
    next_job,
    slurm,
)

pytestmark = [pytest.mark.slow, pytest.mark.slurm]


def test_what_was_saved_goes_on_in_another_job(long_corpus: Path, tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    profile = str(desk.write("small.yaml", {"partition": "dev", "timeout_min": 20, "sbatch": {"requeue": False}}))
    desk.write("tiny.yaml", {"experiment": values(long_corpus, stages=CHAIN), "profile": profile})
    driver = desk.start("submit.py", "--grid", "tiny.yaml", "--cluster", "slurm", "--scheduler", "none")
    with ended_in_any_case(desk, "tiny", driver):
        wait_until(lambda: desk.runs("tiny"), 60, desk.log)
        (run,) = desk.runs("tiny")
        with caught_in_mid_stage(run) as caught:
            slurm("scancel", "--signal=USR2", caught.job)
        wait_until(lambda: not in_queue(caught.job), 60, "the job's end")
        assert_saved_in_mid_epoch(run)
        assert not run.stage(1).failed.exists(), "only an error of the training is a failure"
        next_job(run, caught.job)
        assert driver.wait(180) == 0, desk.log()
    assert_nothing_lost(desk, run)
