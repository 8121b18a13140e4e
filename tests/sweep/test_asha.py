"""Successive halving: it gives trials up in their first stage, ends their jobs, and another scheduler takes them up."""

import pytest
from desk import Desk, assert_every_epoch_once, epoch_rows, mlflow_status, values

from sia.atomic import read_json
from sia.run.folder import RunFolder
from sia.run.queue import is_in_queue
from sia.run.records import Job
from sia.run.state import State, look

pytestmark = pytest.mark.slow
FIRST, EPOCHS = 36, 37  # long enough that a trial is stopped long before its stage ends
SUBMIT = ("submit.py", "--grid", "tiny.yaml", "--cluster", "local", "--profile", "one.yaml")


@pytest.fixture(scope="module")
def halved(corpus, tmp_path_factory) -> tuple[Desk, list[RunFolder], list[RunFolder]]:
    """A study of pairs that learn and pairs that cannot; its runs, and those that were stopped."""
    desk = Desk(tmp_path_factory.mktemp("asha"))
    desk.write("one.yaml", {"tasks_per_node": 1})
    stages = [{"epochs": FIRST, "schedule": "calr"}, {"epochs": 1, "schedule": "calr", "lr_scale": 0.5}]
    rates = {"optimizer.learning_rate": [3e-3, 1e-9, 2e-9]}
    desk.write("tiny.yaml", {"experiment": values(corpus, stages=stages), "grid": rates})
    done = desk.run(*SUBMIT, "--scheduler", "asha", "--max-concurrent", "2", timeout=240)
    assert done.returncode == 0, done.stdout + done.stderr
    runs = desk.runs("tiny")
    return desk, runs, [run for run in runs if run.stopped.exists()]


def test_a_trial_is_given_up_in_its_first_stage_and_its_job_ended(halved):
    _, runs, stopped = halved
    assert len(runs) == 3 and stopped
    for run in stopped:
        told = read_json(run.stopped)
        assert told["by"] == "asha" and 1 <= told["epoch"] < FIRST
        assert look(run).state == State.STOPPED
        assert not run.stage(1).done.exists() and not run.stage(2).plan.exists()
        assert not is_in_queue(Job.read(run.stage(1).job)) and not run.lock.exists()
        assert 0 < len(epoch_rows(run)) < FIRST


def test_the_study_ends_with_the_rest_finished(halved):
    desk, runs, stopped = halved
    rest = [run for run in runs if run not in stopped]
    assert rest
    for run in rest:
        assert look(run).state == State.FINISHED
        assert_every_epoch_once(run, EPOCHS)
    assert mlflow_status(desk.uri, "tiny") >= {"FINISHED", "KILLED"}


def test_asha_leaves_stopped_runs_alone_and_tune_finishes_them(halved):
    desk, runs, stopped = halved
    rows = {run.name: len(epoch_rows(run)) for run in stopped}
    assert "stopped" in desk.run(*SUBMIT, "--dry-run").stdout
    again = desk.run(*SUBMIT, "--scheduler", "asha")
    assert again.returncode == 0
    assert {run.name: len(epoch_rows(run)) for run in stopped} == rows

    done = desk.run(*SUBMIT, "--scheduler", "tune", "--max-concurrent", "2", timeout=240)
    assert done.returncode == 0, done.stdout + done.stderr
    for run in runs:
        assert look(run).state == State.FINISHED and not run.stopped.exists()
        assert_every_epoch_once(run, EPOCHS)
    assert mlflow_status(desk.uri, "tiny") == {"FINISHED"}
