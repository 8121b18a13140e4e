"""A driver that is a Slurm job: it waits for another job, outlives the shell, is requeued, cancelled, and retried."""

import os
import signal
from pathlib import Path

import pytest
import slurm_box as box
from desk import Desk, assert_every_epoch_once, epoch_rows, in_mid_stage, job_of, mlflow_history, values

from sia.run.folder import RunFolder
from sia.run.lock import NOBODY_KNOWS, living_holder
from sia.run.state import State

pytestmark = [pytest.mark.slow, pytest.mark.slurm]


def detached(desk: Desk, *flags: str) -> str:
    done = desk.run(*box.SUBMIT, "--detach", *flags, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"job {box.driver_job(desk)} drives study tiny" in done.stdout
    return box.driver_job(desk)


def the_run(desk: Desk) -> RunFolder:
    return box.wait_for(lambda: next(iter(desk.runs("tiny")), None), "the driver's run folder")  # type: ignore[no-any-return]


def drives(desk: Desk, job: str) -> bool:
    lock = desk.folder / "runs" / "tiny" / "driver.lock"
    return (living_holder(lock) or NOBODY_KNOWS).job_id == job and box.in_queue(job) == "RUNNING"


def test_a_detached_driver_waits_and_ends_the_study_though_it_is_requeued(tmp_path: Path, corpus: Path) -> None:
    desk = Desk(tmp_path / "desk")
    box.write_study(desk, {"experiment": values(corpus, stages=[{"epochs": 40}, {"epochs": 1}])})
    with box.no_job_left(desk), box.held_job() as before:
        driver = detached(desk, "--dependency", f"afterok:{before}")
        assert box.slurm("squeue", "-h", "-j", driver, "-o", "%T %r") == "PENDING Dependency"
        assert f"driven by job {driver} (pending, Dependency)" in desk.call("status.py").stdout
        assert "has written nothing yet" in desk.call("logs.py", "tiny").stderr
        here = desk.start(*box.SUBMIT)
        box.wait_for(lambda: f"driven by job {driver} (pending, Dependency); attached" in desk.log, "it attaches")
        assert not desk.runs("tiny")
        box.slurm("scontrol", "release", before)
        run = the_run(desk)
        with box.caught_in_mid_stage(run) as caught:
            second = desk.call(*box.SUBMIT, "--detach")
            assert second.returncode == 0 and f"driven by job {driver}" in second.stdout
            for life, signalled in enumerate(("USR2", "TERM"), start=1):
                box.slurm("scancel", f"--signal={signalled}", driver)
                box.wait_for(lambda life=life: box.restarts(driver) == life, f"the driver's requeue by {signalled}")
                box.wait_for(lambda: drives(desk, driver), "it drives again")
        box.wait_for(run.finished.exists, "the run's end")
        box.wait_for(lambda: not box.in_queue(driver), "the driver's end")
        assert here.wait(60) == 0 and f"{run.name}: finished" in desk.log, desk.log
    assert box.jobs_that_trained(run) == [caught.job], "the driver attached to its job"
    assert_every_epoch_once(run, 41)
    assert mlflow_history(desk.uri, "tiny")[run.name]["train/loss"] == list(range(1, 42))


def test_a_detached_study_is_left_cancelled_retried_and_lost(tmp_path: Path, corpus: Path) -> None:
    desk = Desk(tmp_path / "desk")
    box.write_study(desk, {"experiment": values(corpus, stages=[{"epochs": 4000, "schedule": "calr"}])})
    with box.no_job_left(desk):
        run, first = left_by_a_driver_that_a_person_ended(desk)
        cancelled_in_order(desk, run, first)
        before = epoch_rows(run)
        driver = desk.start("retry.py", "tiny")
        box.wait_for(lambda: len(epoch_rows(run)) > len(before), f"another epoch\n{desk.log}")
        second = job_of(run)
        assert second != first and epoch_rows(run)[: len(before)] == before
        os.kill(driver.pid, signal.SIGKILL)
        driver.wait()
        box.slurm("scancel", second)
        box.wait_for(lambda: not box.in_queue(second) and not run.lock.exists(), "the job's end")
        lost = desk.run("status.py", "tiny").stdout
    assert "nobody drives it; to go on: python jobs/submit.py --again tiny" in lost
    # Under --no-accounting nobody knows more.
    known = os.path.exists(f"{os.path.dirname(os.environ.get('SLURM_CONF', ''))}/slurmdbd.conf")
    why = f"job {second} ended: CANCELLED by" if known else f"job {second} left without a word"
    assert why in lost, lost
    assert_every_epoch_once(run, len(epoch_rows(run)))


def left_by_a_driver_that_a_person_ended(desk: Desk) -> tuple[RunFolder, str]:
    """A scancel of the driver's job is no preemption: it is not requeued, and the run's job goes on."""
    driver = detached(desk, *box.NONE)
    run = the_run(desk)
    box.wait_for(lambda: in_mid_stage(run), "an epoch")
    box.slurm("scancel", driver)
    box.wait_for(lambda: not box.in_queue(driver), "the end of a driver that was cancelled")
    assert box.in_queue(job_of(run)) == "RUNNING"
    return run, job_of(run)


def cancelled_in_order(desk: Desk, run: RunFolder, job: str) -> None:
    driver = detached(desk, *box.NONE)
    box.wait_for(lambda: drives(desk, driver), "the next driver")
    shown = desk.call("status.py", "tiny").stdout
    assert f"tiny: driven by job {driver} (running, process" in shown
    box.wait_for(lambda: f"{run.name}: running" in desk.call("logs.py", "tiny").stdout, "what the driver said")
    cancelled = desk.call("cancel.py", "tiny", "--yes")
    assert cancelled.returncode == 0, cancelled.stdout + cancelled.stderr
    assert f"job {driver} (running" in cancelled.stdout and f"slurm job {job}" in cancelled.stdout
    assert not box.in_queue(driver) and not box.in_queue(job)
    assert box.state(run) == State.STOPPED and not run.stage(1).failed.exists() and not run.lock.exists()
    assert not (run.path.parent / "driver.lock").exists(), "the driver left in good order"


def test_a_driver_that_waits_is_cancelled(tmp_path: Path, corpus: Path) -> None:
    desk = Desk(tmp_path / "desk")
    box.write_study(desk, {"experiment": values(corpus)})
    with box.no_job_left(desk), box.held_job() as before:
        driver = detached(desk, "--dependency", f"afterok:{before}")
        cancelled = desk.call("cancel.py", "tiny", "--yes")
        assert cancelled.returncode == 0 and not box.in_queue(driver), cancelled.stdout + cancelled.stderr
