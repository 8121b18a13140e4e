"""A controller that takes its time to answer sbatch, and what happens to the driver meanwhile."""

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import stages
from desk import Desk, job_of, values, wait_until
from slurm_box import CHAIN, ended_in_any_case, in_queue

from sia.run.folder import RunFolder
from sia.run.state import State, look

pytestmark = [pytest.mark.slow, pytest.mark.slurm]
SUBMIT = ("submit.py", "--grid", "tiny.yaml", "--cluster", "slurm", "--profile", "one.yaml")


@pytest.fixture
def desk(tmp_path: Path, long_corpus: Path) -> Iterator[Desk]:
    """Its sbatch says that it was called, and waits until it may go on."""
    desk = Desk(tmp_path / "desk")
    desk.write("one.yaml", {"partition": "dev", "timeout_min": 20})
    desk.write("tiny.yaml", {"experiment": values(long_corpus, stages=CHAIN)})
    slow = tmp_path / "bin" / "sbatch"
    slow.parent.mkdir()
    slow.write_text(
        f"#!/bin/sh\ncd {tmp_path} && touch called\n"
        "until [ -e go ]; do [ -e over ] && exit 1; sleep 0.2; done\n"
        f'cd - >/dev/null && exec {shutil.which("sbatch")} "$@"\n'
    )
    slow.chmod(0o755)
    desk.environment["PATH"] = f"{slow.parent}:{os.environ['PATH']}"
    yield desk
    (tmp_path / "over").touch()


def run_whose_submission_hangs(desk: Desk) -> RunFolder:
    wait_until((desk.folder.parent / "called").exists, 90, desk.log)
    (run,) = desk.runs("tiny")
    assert not run.stage(1).job.exists()
    return run


def go_on(desk: Desk) -> None:
    (desk.folder.parent / "go").touch()


def test_a_driver_that_is_killed_leaves_a_job_that_is_known(desk: Desk) -> None:
    """Under Tune, whose workers end with the driver, or soon after it."""
    driver = desk.start(*SUBMIT)
    with ended_in_any_case(desk, "tiny", driver):
        run = run_whose_submission_hangs(desk)
        driver.kill()
        driver.wait()
        with contextlib.suppress(AssertionError):
            wait_until(lambda: not ray_workers(desk), 10, "the end of Ray's workers")
        go_on(desk)
        job = wait_until(lambda: job_of(run), 60, "job.json")
        wait_until(lambda: stages.rows(run), 120, f"an epoch of job {job}")


def test_a_study_that_is_cancelled_stays_so(desk: Desk) -> None:
    driver = desk.start(*SUBMIT)
    with ended_in_any_case(desk, "tiny", driver):
        run = run_whose_submission_hangs(desk)
        cancelled = desk.run("cancel.py", "tiny", "--yes", timeout=150)
        assert cancelled.returncode == 0, cancelled.stdout + cancelled.stderr
        go_on(desk)
        job = wait_until(lambda: job_of(run), 60, "job.json")
        wait_until(lambda: not in_queue(job), 60, f"the end of job {job}")
    assert look(run).state == State.STOPPED and not stages.rows(run)


def ray_workers(desk: Desk) -> list[str]:
    found = subprocess.run(["pgrep", "-f", "ray::"], capture_output=True, text=True).stdout.split()
    return [pid for pid in found if is_of(desk, pid)]


def is_of(desk: Desk, pid: str) -> bool:
    try:
        return desk.uri.encode() in Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return False
