"""On a real Slurm cluster: a detached study is cancelled, its log read, retried, and a lost job explained."""

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from desk import Desk, assert_every_epoch_once, epoch_rows, in_mid_stage, job_of, values, wait_until

from sia.atomic import read_json
from sia.run.state import State, look

pytestmark = [pytest.mark.slow, pytest.mark.slurm]


@pytest.fixture
def desk(tmp_path: Path, corpus: Path) -> Iterator[Desk]:
    desk = Desk(tmp_path / "desk")
    desk.write("small.yaml", {"partition": "dev", "timeout_min": 20})
    chain = [{"epochs": 300, "schedule": "calr"}]
    desk.write("tiny.yaml", {"study": "tiny", "experiment": values(corpus, stages=chain), "profile": "desk/small.yaml"})
    yield desk
    jobs = [job_of(run) for run in desk.runs("tiny")] + [driver_job(desk)]
    subprocess.run(["scancel", *[job for job in jobs if job]], capture_output=True)


def driver_job(desk: Desk) -> str:
    return str((read_json(desk.folder / "runs" / "tiny" / "driver.json") or {"job_id": ""})["job_id"])


def in_queue(job: str) -> bool:
    listed = subprocess.run(["squeue", "-h", "--me", "-o", "%i"], capture_output=True, text=True, check=True).stdout
    return job in listed.split()


def accounts() -> bool:
    """Whether this cluster keeps them."""
    return subprocess.run(["sacct", "-n", "-X"], capture_output=True).returncode == 0


def test_a_detached_study_is_cancelled_retried_and_lost(desk: Desk) -> None:
    detached = desk.run("submit.py", "--grid", "tiny.yaml", "--cluster", "slurm", "--detach", "--scheduler", "none")
    assert detached.returncode == 0, detached.stdout + detached.stderr
    run = wait_until(lambda: next(iter(desk.runs("tiny")), None), 90, "the driver's run folder")
    wait_until(lambda: in_mid_stage(run), 120, "an epoch")
    first, driver = job_of(run), driver_job(desk)
    shown = desk.run("status.py", "tiny").stdout
    assert f"tiny: driven by job {driver} (running, process" in shown and "s ago" in shown
    assert f"{run.name}: running" in desk.run("logs.py", "tiny").stdout, "what the driver said"

    cancelled = desk.run("cancel.py", "tiny", "--yes", timeout=150)
    assert cancelled.returncode == 0, cancelled.stdout + cancelled.stderr
    assert f"job {driver} (running" in cancelled.stdout and f"slurm job {first}" in cancelled.stdout
    assert not in_queue(driver) and not in_queue(first)
    assert look(run).state == State.STOPPED and not run.stage(1).failed.exists() and not run.lock.exists()
    assert not (run.path.parent / "driver.lock").exists(), "the driver left in good order"
    before = epoch_rows(run)

    driver_again = desk.start("retry.py", "tiny")
    wait_until(lambda: len(epoch_rows(run)) > len(before), 120, f"another epoch\n{desk.log}")
    second = job_of(run)
    assert second != first and epoch_rows(run)[: len(before)] == before
    os.kill(driver_again.pid, signal.SIGKILL)
    driver_again.wait()
    subprocess.run(["scancel", second], check=True)
    wait_until(lambda: not in_queue(second) and not run.lock.exists(), 60, "the job's end")
    lost = desk.run("status.py", "tiny").stdout
    assert "nobody drives it; submit it again to go on" in lost
    why = f"job {second} ended: CANCELLED by" if accounts() else f"job {second} left without a word"
    assert why in lost, lost
    assert_every_epoch_once(run, len(epoch_rows(run)))


@pytest.fixture
def held() -> Iterator[str]:
    """A job that waits for ever."""
    command = ["sbatch", "--parsable", "--partition=dev", "--output=/dev/null", "--hold", "--wrap", "true"]
    job = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    yield job
    subprocess.run(["scancel", job], capture_output=True)


def test_a_driver_that_waits_is_cancelled(desk: Desk, held: str) -> None:
    flags = ("--cluster", "slurm", "--detach", "--dependency", f"afterok:{held}")
    assert desk.run("submit.py", "--grid", "tiny.yaml", *flags).returncode == 0
    job = driver_job(desk)
    assert f"driven by job {job} (pending, Dependency)" in desk.run("status.py").stdout
    assert "has written nothing yet" in desk.run("logs.py", "tiny").stderr
    cancelled = desk.run("cancel.py", "tiny", "--yes", timeout=90)
    assert cancelled.returncode == 0 and not in_queue(job), cancelled.stdout + cancelled.stderr
