"""A driver under Ray Tune that is told to end by SIGTERM, as by a machine that is shut down."""

from pathlib import Path

import pytest
from desk import Desk, epoch_rows, in_mid_stage, job_of, values, wait_until

from sia.cluster.end_jobs import cancel_jobs
from sia.operate.cancel import jobs_of
from sia.run.state import State, look

pytestmark = pytest.mark.slow


def test_it_leaves_in_order_and_its_jobs_go_on(corpus: Path, tmp_path: Path) -> None:
    desk = Desk(tmp_path / "desk")
    desk.write("one.yaml", {"tasks_per_node": 1})
    desk.write("tiny.yaml", {"experiment": values(corpus, stages=[{"epochs": 4000, "schedule": "calr"}])})
    driver = desk.start("submit.py", "--grid", "tiny.yaml", "--cluster", "local", "--profile", "one.yaml")
    try:
        (run,) = wait_until(lambda: desk.runs("tiny"), 120, desk.log)
        wait_until(lambda: in_mid_stage(run), 120, f"an epoch\n{desk.log}")
        driver.terminate()
        assert driver.wait(90) == 143, desk.log
        assert "go on; submit the same grid again" in desk.log
        assert "SIGTERM" not in desk.log and "Traceback" not in desk.log and "    @ " not in desk.log
        assert look(run).state == State.RUNNING and job_of(run)
        before = len(epoch_rows(run))
        wait_until(lambda: len(epoch_rows(run)) > before, 120, "another epoch of the job")
    finally:
        driver.kill()
        driver.wait()
        for one in desk.runs("tiny"):
            cancel_jobs(jobs_of(one))
