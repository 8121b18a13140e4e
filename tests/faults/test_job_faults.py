"""What may befall a job, all at once: one study on a real Slurm, of which each run suffers another fault.

The runs differ in a setting that their loss does not use, so all of them must end with the bits of the first.
"""

import os
import signal
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest
from desk import Desk, values, wait_until
from slurm_box import (
    CHAIN,
    EPOCHS,
    assert_nothing_lost,
    assert_same_bits,
    assert_saved_in_mid_epoch,
    caught_in_mid_stage,
    ended_in_any_case,
    in_queue,
    jobs_that_trained,
    next_job,
    processes_of,
    progress,
    ranks_of,
    restarts,
    send,
    slurm,
    state_of,
)

from sia.atomic import read_json
from sia.run.folder import RunFolder
from sia.run.lock import NOBODY_KNOWS, holder_of

pytestmark = [pytest.mark.slow, pytest.mark.slurm]


def none(run: RunFolder) -> None:
    """Nothing befalls it."""


def one_rank_killed(run: RunFolder) -> None:
    """As by a machine that is short of memory. The job is lost, and its driver submits another one."""
    with caught_in_mid_stage(run) as caught:
        os.kill(caught.ranks[1], signal.SIGKILL)
    second = next_job(run, caught.job)
    wait_until(lambda: second in jobs_that_trained(run), 120, "the second job's start")
    assert not run.stage(1).failed.exists() and restarts(caught.job) == 0


def all_processes_killed(run: RunFolder) -> None:
    """As by a machine that loses its power; scancel would ask the job to end before it kills it."""
    with caught_in_mid_stage(run) as caught:
        send(signal.SIGKILL, processes_of(caught.job))
    wait_until(lambda: not in_queue(caught.job), 60, "the job's end")
    saved, next_batch = progress(run)
    assert next_batch == 0 and 0 < saved["epochs_done"] < EPOCHS, "it had no time to save"
    next_job(run, caught.job)


def killed_while_it_writes_a_checkpoint(run: RunFolder) -> None:
    wait_until(run.stage(1).last.exists, 200, "a first checkpoint")
    holder = holder_of(run.lock) or NOBODY_KNOWS
    ranks = ranks_of(holder.job_id)
    wait_until(lambda: stopped_in_mid_write(run, ranks[0]), 120, "a checkpoint that is being written")
    send(signal.SIGKILL, ranks.values())
    assert unfinished(run) and not run.stage(1).done.exists(), "it died in the middle of the file"
    assert progress(run)[0]["epochs_done"] in range(1, EPOCHS), "the one before is whole"
    next_job(run, holder.job_id)


def unfinished(run: RunFolder) -> list[Path]:
    return list(run.stage(1).last.parent.glob(".last.pt.*.tmp"))


def stopped_in_mid_write(run: RunFolder, writer: int) -> bool:
    """Whether the writer could be stopped while its unfinished file was there."""
    deadline = time.monotonic() + 1
    while time.monotonic() < deadline:
        if unfinished(run):
            os.kill(writer, signal.SIGSTOP)
            wait_until(lambda: state_of(writer) in ("T", "Z", ""), 10, "the writer's stop")
            if unfinished(run):
                return True
            os.kill(writer, signal.SIGCONT)
        time.sleep(0.0005)
    return False


def requeued(run: RunFolder) -> None:
    """As by a partition that preempts: SIGTERM, a while to end, and the same job again."""
    with caught_in_mid_stage(run) as caught:
        slurm("scontrol", "requeue", caught.job)
    came_back(run, caught.job)


def asked_to_requeue(run: RunFolder) -> None:
    """As by an administrator's signal, or ahead of a time limit."""
    with caught_in_mid_stage(run) as caught:
        slurm("scancel", "--signal=USR2", caught.job)
    came_back(run, caught.job)


def came_back(run: RunFolder, job: str) -> None:
    wait_until(lambda: in_queue(job) == "PENDING", 60, f"the requeue of {job}")
    assert_saved_in_mid_epoch(run)
    wait_until(lambda: in_queue(job) == "RUNNING", 120, f"the second life of {job}")
    assert restarts(job) == 1


def cancelled_by_a_person(run: RunFolder) -> None:
    """Whose driver lives, and submits the stage again."""
    with caught_in_mid_stage(run) as caught:
        slurm("scancel", caught.job)
    wait_until(lambda: not in_queue(caught.job), 60, "the job's end")
    assert_saved_in_mid_epoch(run)
    next_job(run, caught.job)


def time_limit_reached_twice(run: RunFolder) -> None:
    """Slurm's own signal ahead of a limit of two minutes finds the job in mid-stage, in two lives of it."""
    for life in (1, 2):
        outlives_its_time_limit(run, life)


def outlives_its_time_limit(run: RunFolder, life: int) -> None:
    wait_until(lambda: len(jobs_that_trained(run)) == life, 200, f"training in life {life}")
    with caught_in_mid_stage(run) as caught:
        # Slurm wakes a stopped process before it signals it.
        wait_until(lambda: state_of(caught.ranks[0]) != "T", 115, "the signal ahead of the time limit")
    wait_until(lambda: restarts(caught.job) == life, 60, f"requeue {life} of {caught.job}")
    assert_saved_in_mid_epoch(run)
    wait_until(lambda: (holder_of(run.lock) or NOBODY_KNOWS).pid not in (0, caught.ranks[0]), 120, "the next life")


Fault = Callable[[RunFolder], None]
FAULTS: list[Fault] = [
    none,
    one_rank_killed,
    all_processes_killed,
    killed_while_it_writes_a_checkpoint,
    requeued,
    asked_to_requeue,
    cancelled_by_a_person,
    time_limit_reached_twice,
]
JOBS = {  # how many jobs, and how many lives of jobs, train the first stage
    none: (1, 1),
    requeued: (1, 2),
    asked_to_requeue: (1, 2),
    time_limit_reached_twice: (1, 3),
}
NAMES = [fault.__name__ for fault in FAULTS]


@dataclass
class Storm:
    """The study after its end, and what became of each fault."""

    desk: Desk
    runs: dict[str, RunFolder]
    faults: dict[str, "Future[None]"]
    status: int


@pytest.fixture(scope="module")
def storm(long_corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Storm:
    desk = Desk(tmp_path_factory.mktemp("storm"))
    paired = {"partition": "dev", "tasks_per_node": 2}
    usual = str(desk.write("usual.yaml", {**paired, "timeout_min": 20}))
    # Slurm signals up to half a minute early: a limit of one minute may end before eight jobs at once have begun.
    short = str(desk.write("short.yaml", {**paired, "timeout_min": 2}))
    unused = {name: 1000 + number for number, name in enumerate(NAMES)}
    key = "training.chunk_size"  # beyond the batch it changes nothing
    where = [{"match": {key: unused["time_limit_reached_twice"]}, "profile": short}]
    grid = {"experiment": values(long_corpus, stages=CHAIN), "grid": {key: list(unused.values())}}
    desk.write("tiny.yaml", {**grid, "where": where, "profile": usual})

    driver = desk.start("submit.py", "--grid", "tiny.yaml", "--cluster", "slurm", "--scheduler", "none")
    with ended_in_any_case(desk, "tiny", driver), ThreadPoolExecutor(len(FAULTS)) as threads:
        wait_until(lambda: len(desk.runs("tiny")) == len(FAULTS), 60, desk.log)
        found = {run.experiment().training.chunk_size: run for run in desk.runs("tiny")}
        runs = {name: found[unused[name]] for name in NAMES}
        faults = {fault.__name__: threads.submit(fault, runs[fault.__name__]) for fault in FAULTS}
        status = driver.wait(420)
    return Storm(desk, runs, faults, status)


def test_the_driver_reaches_the_end(storm: Storm) -> None:
    assert storm.status == 0, storm.desk.log


@pytest.mark.parametrize("fault", FAULTS, ids=NAMES)
def test_nothing_is_lost(storm: Storm, fault: Fault) -> None:
    run = storm.runs[fault.__name__]
    storm.faults[fault.__name__].result()
    assert_nothing_lost(storm.desk, run)
    assert read_json(run.finished)["world_size"] == 2
    trained = jobs_that_trained(run)
    assert (len(set(trained)), len(trained)) == JOBS.get(fault, (2, 2))
    assert_same_bits(run, storm.runs["none"])
