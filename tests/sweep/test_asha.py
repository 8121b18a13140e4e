"""Successive halving: it gives trials up in their first stage, ends their jobs, and leaves them so."""

import pytest
from desk import Desk, assert_every_epoch_once, epoch_rows, mlflow_status, values

from sia.atomic import read_json
from sia.run.queue import is_in_queue
from sia.run.records import Job
from sia.run.state import State, look

pytestmark = pytest.mark.slow
FIRST, EPOCHS = 240, 241  # long enough that Tune, which starts beside the first jobs, stops one long before its end
SUBMIT = ("submit.py", "--grid", "tiny.yaml", "--cluster", "local", "--profile", "one.yaml", "--scheduler", "asha")


def test_trials_are_given_up_in_their_first_stage_and_the_rest_is_finished(corpus, tmp_path):
    """A study of a pair that learns and pairs that cannot. What happens to them later: tests/sweep/test_take_up.py."""
    desk = Desk(tmp_path / "desk")
    desk.write("one.yaml", {"tasks_per_node": 1})
    stages = [{"epochs": FIRST, "schedule": "calr"}, {"epochs": 1, "schedule": "calr", "lr_scale": 0.5}]
    rates = {"optimizer.learning_rate": [3e-3, 1e-9, 2e-9]}
    desk.write("tiny.yaml", {"experiment": values(corpus, stages=stages), "grid": rates})
    done = desk.run(*SUBMIT, "--max-concurrent", "2", timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    runs = desk.runs("tiny")
    stopped = [run for run in runs if run.stopped.exists()]
    rest = [run for run in runs if run not in stopped]
    assert len(runs) == 3 and stopped and rest
    for run in stopped:
        told = read_json(run.stopped)
        assert told["by"] == "asha" and 1 <= told["epoch"] < FIRST
        assert look(run).state == State.STOPPED
        assert not run.stage(1).done.exists() and not run.stage(2).plan.exists()
        assert not is_in_queue(Job.read(run.stage(1).job)) and not run.lock.exists()
        assert 0 < len(epoch_rows(run)) < FIRST
    for run in rest:
        assert look(run).state == State.FINISHED
        assert_every_epoch_once(run, EPOCHS)
    assert mlflow_status(desk.uri, "tiny") >= {"FINISHED", "KILLED"}

    rows = {run.name: len(epoch_rows(run)) for run in stopped}
    assert "stopped" in desk.call(*SUBMIT, "--dry-run").stdout
    assert desk.call(*SUBMIT).returncode == 0
    assert {run.name: len(epoch_rows(run)) for run in stopped} == rows
