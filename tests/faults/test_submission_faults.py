"""A controller that takes its time to answer sbatch, and one that takes one job of this user at a time."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import slurm_box as box
import stages
from desk import Desk, assert_every_epoch_once, job_of, values

from sia.atomic import read_json
from sia.cluster.end_jobs import processes
from sia.run.folder import RunFolder
from sia.run.state import State

pytestmark = [pytest.mark.slow, pytest.mark.slurm]
LONG = [{"epochs": 4000, "schedule": "calr"}]


@pytest.fixture
def slow(tmp_path: Path, corpus: Path) -> Iterator[Desk]:
    """A desk whose sbatch says that it was called, and waits until it may go on."""
    desk = Desk(tmp_path / "desk")
    box.write_study(desk, {"experiment": values(corpus, stages=LONG)})
    sbatch = tmp_path / "bin" / "sbatch"
    sbatch.parent.mkdir()
    sbatch.write_text(
        f"#!/bin/sh\ncd {tmp_path} && touch called\n"
        "until [ -e go ]; do [ -e over ] && exit 1; sleep 0.2; done\n"
        f'cd - >/dev/null && exec {shutil.which("sbatch")} "$@"\n'
    )
    sbatch.chmod(0o755)
    desk.environment["PATH"] = f"{sbatch.parent}:{os.environ['PATH']}"
    yield desk
    (tmp_path / "over").touch()


def run_whose_submission_hangs(study: box.Study) -> RunFolder:
    box.wait_for((study.desk.folder.parent / "called").exists, "sbatch")
    (run,) = study.runs()
    assert not run.stage(1).job.exists()
    return run


def goes_on(desk: Desk, run: RunFolder) -> str:
    (desk.folder.parent / "go").touch()
    return str(box.wait_for(lambda: job_of(run), "job.json"))


def test_a_driver_that_is_killed_leaves_a_job_that_is_known(slow: Desk) -> None:
    """Under Tune, whose workers end with the driver, or soon after it."""
    with box.submitted(slow) as study:
        run = run_whose_submission_hangs(study)
        study.driver.kill()
        study.driver.wait()
        box.wait_for(lambda: not trials(slow), "the end of Ray's workers")
        job = goes_on(slow, run)
        box.wait_for(lambda: stages.rows(run), f"an epoch of job {job}")


def trials(desk: Desk) -> list[int]:
    return [pid for pid, words in processes(f"MLFLOW_TRACKING_URI={desk.uri}") if words[0].startswith("ray::")]


def test_a_study_that_is_cancelled_stays_so(slow: Desk) -> None:
    with box.submitted(slow, *box.NONE) as study:
        run = run_whose_submission_hangs(study)
        cancelled = slow.call("cancel.py", "tiny", "--yes")
        assert cancelled.returncode == 0, cancelled.stdout + cancelled.stderr
        job = goes_on(slow, run)
        box.wait_for(lambda: not box.in_queue(job), f"the end of job {job}")
    assert box.state(run) == State.STOPPED and not stages.rows(run)


@pytest.fixture
def account() -> str:
    """An account of which this user may have one job in the queue, as many clusters limit it."""
    user, name = box.slurm("id", "-un"), "limited"
    if not box.slurm("sacctmgr", "-nP", "show", "account", name):
        box.slurm("sacctmgr", "-i", "add", "account", name)
        box.slurm("sacctmgr", "-i", "add", "user", user, f"account={name}", "MaxSubmitJobs=1")
    return name


def test_a_run_waits_for_the_place_of_another(account: str, corpus: Path, tmp_path: Path) -> None:
    desk = Desk(tmp_path / "desk")
    one_epoch = {"experiment": values(corpus, stages=[{"epochs": 1, "schedule": "calr"}]), "seeds": [0, 1]}
    box.write_study(desk, one_epoch, account=account)
    with box.submitted(desk, *box.NONE) as study:
        runs = study.runs(2)
        waiting = box.wait_for(lambda: next(filter(is_refused, runs), None), "a run that was not taken")
        assert box.state(waiting) == State.WAITING and not waiting.stage(1).failed.exists()
        assert "SubmitJobLimit" in desk.call("status.py", "tiny").stdout
        study.reaches_its_end()
    for run in runs:
        assert box.state(run) == State.FINISHED
        assert_every_epoch_once(run, 1)


def is_refused(run: RunFolder) -> bool:
    return "SubmitJobLimit" in (read_json(run.launch) or {}).get("refused", "")
