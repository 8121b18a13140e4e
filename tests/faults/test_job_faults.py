"""What may befall a job, all at once: one study on a real Slurm, of which each run suffers other faults.

The runs differ in a setting that their loss does not use, so all of them must end with the bits of the first. MLflow's
database is locked until they have ended, and none of them waits for it.
"""

import os
import signal
import sqlite3
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import slurm_box as box
from desk import Desk, mlflow_status, values

from sia.atomic import read_json
from sia.run.folder import RunFolder
from sia.run.lock import NOBODY_KNOWS, holder_of
from sia.trackers.mlflow.store import connect

pytestmark = [pytest.mark.slow, pytest.mark.slurm, pytest.mark.timeout(1800)]


def one_rank_killed(run: RunFolder) -> None:
    """As by a machine that is short of memory. The job is lost, and its driver submits another one."""
    with box.caught_in_mid_stage(run) as caught:
        os.kill(caught.ranks[1], signal.SIGKILL)
    second = box.next_job(run, caught.job)
    box.wait_for(lambda: second in box.jobs_that_trained(run), "the second job's start")
    assert not run.stage(1).failed.exists() and box.restarts(caught.job) == 0


def all_processes_killed(run: RunFolder) -> None:
    """As by a machine that loses its power; scancel would ask the job to end before it kills it."""
    with box.caught_in_mid_stage(run) as caught:
        box.send(signal.SIGKILL, box.processes_of(caught.job))
    box.wait_for(lambda: not box.in_queue(caught.job), "the job's end")
    saved, next_batch = box.progress(run)
    assert next_batch == 0 and 0 < saved["epochs_done"] < box.EPOCHS, "it had no time to save"
    box.next_job(run, caught.job)


def killed_while_it_writes_a_checkpoint(run: RunFolder) -> None:
    with box.caught_in_mid_stage(run) as caught:
        pass
    box.wait_for(lambda: stopped_in_mid_write(run, caught.ranks[0]), "a checkpoint that is being written")
    box.send(signal.SIGKILL, caught.ranks.values())
    assert unfinished(run) and not run.stage(1).done.exists(), "it died in the middle of the file"
    assert box.progress(run)[0]["epochs_done"] in range(1, box.EPOCHS), "the one before is whole"
    box.next_job(run, caught.job)


def unfinished(run: RunFolder) -> list[Path]:
    return list(run.stage(1).last.parent.glob(".last.pt.*.tmp"))


def stopped_in_mid_write(run: RunFolder, writer: int) -> bool:
    """Whether the writer could be stopped while its unfinished file was there."""
    for _ in range(1000):
        if unfinished(run):
            os.kill(writer, signal.SIGSTOP)
            box.wait_for(lambda: box.state_of(writer) in ("T", "Z", ""), "the writer's stop", every=0.001)
            if unfinished(run):
                return True
            os.kill(writer, signal.SIGCONT)
        time.sleep(0.0005)
    return False


def requeued(run: RunFolder) -> None:
    """As by a partition that preempts: SIGTERM, a while to end, and the same job again."""
    comes_back(run, "scontrol", "requeue")


def asked_to_requeue(run: RunFolder) -> None:
    """As by an administrator's signal, or ahead of a time limit."""
    comes_back(run, "scancel", "--signal=USR2")


def comes_back(run: RunFolder, *command: str) -> None:
    with box.caught_in_mid_stage(run) as caught:
        life = box.restarts(caught.job)
        box.slurm(*command, caught.job)
    box.wait_for(lambda: box.in_queue(caught.job) == "PENDING", f"the requeue of {caught.job}")
    box.assert_saved_in_mid_epoch(run)
    box.wait_for(lambda: box.in_queue(caught.job) == "RUNNING", f"the next life of {caught.job}")
    assert box.restarts(caught.job) == life + 1


def asked_to_requeue_though_it_may_not(run: RunFolder) -> None:
    """By its profile: it is lost, and its driver submits another one."""
    with box.caught_in_mid_stage(run) as caught:
        box.slurm("scancel", "--signal=USR2", caught.job)
    box.wait_for(lambda: not box.in_queue(caught.job), "the job's end")
    box.assert_saved_in_mid_epoch(run)
    assert not run.stage(1).failed.exists(), "only an error of the training is a failure"
    box.next_job(run, caught.job)


def cancelled_by_a_person(run: RunFolder) -> None:
    """Whose driver lives, and submits the stage again."""
    with box.caught_in_mid_stage(run) as caught:
        box.slurm("scancel", caught.job)
    box.wait_for(lambda: not box.in_queue(caught.job), "the job's end")
    box.assert_saved_in_mid_epoch(run)
    box.next_job(run, caught.job)


def time_limit_reached(run: RunFolder) -> None:
    """Slurm's own signal ahead of the limit, which is brought so near that it comes at Slurm's next look at limits."""
    with box.caught_in_mid_stage(run) as caught:
        life = box.restarts(caught.job)
        limit_minutes(caught.job, (seconds_it_ran(caught.job) + WARNED_SECONDS) // 60)
        # Slurm wakes a stopped process before it signals it.
        box.wait_for(lambda: box.state_of(caught.ranks[0]) != "T", "the signal ahead of the time limit")
    box.wait_for(lambda: box.restarts(caught.job) == life + 1, f"requeue {life + 1} of {caught.job}")
    limit_minutes(caught.job, 20)
    box.assert_saved_in_mid_epoch(run)
    box.wait_for(lambda: (holder_of(run.lock) or NOBODY_KNOWS).pid not in (0, caught.ranks[0]), "the next life")


def limit_minutes(job: str, minutes: int) -> None:
    box.slurm("scontrol", "update", f"JobId={job}", f"TimeLimit={minutes}")


def seconds_it_ran(job: str) -> int:
    hours, minutes, seconds = box.slurm("scontrol", "show", "job", job).partition("RunTime=")[2].split()[0].split(":")
    return 3600 * int(hours) + 60 * int(minutes) + int(seconds)


WARNED_SECONDS = 120  # ahead of its limit a job is signalled
Fault = Callable[[RunFolder], None]
FAULTS: dict[str, list[Fault]] = {
    "none": [],
    "lost": [killed_while_it_writes_a_checkpoint, all_processes_killed, cancelled_by_a_person],
    "may not be requeued": [one_rank_killed, asked_to_requeue_though_it_may_not],
    "requeued": [requeued, asked_to_requeue],
    "out of time": [time_limit_reached, time_limit_reached],
}
# How many jobs, and how many lives of jobs, train the first stage.
JOBS = {"none": (1, 1), "lost": (4, 4), "may not be requeued": (3, 3), "requeued": (1, 3), "out of time": (1, 3)}
# submitit counts every preemption of a job of ten minutes as a time limit that was reached.
PROFILES: dict[str, dict[str, Any]] = {
    "may not be requeued": {"sbatch": {"requeue": False}},
    "out of time": {"timeout_min": 10},
}


@dataclass
class Storm:
    """The study after its end."""

    desk: Desk
    runs: dict[str, RunFolder]


@pytest.fixture(scope="module")
def storm(long_corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Storm:
    desk = Desk(tmp_path_factory.mktemp("storm"))
    key, numbers = "training.chunk_size", {name: 1000 + place for place, name in enumerate(FAULTS)}
    paired = {"partition": "dev", "tasks_per_node": 2, "timeout_min": 20}
    where = [
        {"match": {key: numbers[name]}, "profile": str(desk.write(f"{numbers[name]}.yaml", {**paired, **profile}))}
        for name, profile in PROFILES.items()
    ]
    usual = str(desk.write("usual.yaml", paired))
    grid = {"experiment": values(long_corpus, stages=box.CHAIN), "grid": {key: list(numbers.values())}}
    box.write_study(desk, {**grid, "where": where, "profile": usual})
    connect(desk.uri)  # makes the tables
    with (
        closing(sqlite3.connect(desk.folder / "mlflow.db", isolation_level=None)) as database,
        box.submitted(desk, *box.NONE) as study,
        ThreadPoolExecutor(len(FAULTS)) as threads,
    ):
        database.execute("BEGIN EXCLUSIVE")
        found = {run.experiment().training.chunk_size: run for run in study.runs(len(FAULTS))}
        runs = {name: found[number] for name, number in numbers.items()}
        for ended in [threads.submit(suffers, runs[name], faults) for name, faults in FAULTS.items()]:
            ended.result()
        database.execute("ROLLBACK")
        study.reaches_its_end()
    return Storm(desk, runs)


def suffers(run: RunFolder, faults: list[Fault]) -> None:
    for fault in faults:
        fault(run)
    box.wait_for(run.finished.exists, f"the end of {run.path} while the database is locked")


@pytest.mark.parametrize("name", FAULTS)
def test_nothing_is_lost(storm: Storm, name: str) -> None:
    run = storm.runs[name]
    box.assert_nothing_lost(storm.desk, run)
    assert read_json(run.finished)["world_size"] == 2
    trained = box.jobs_that_trained(run)
    assert (len(set(trained)), len(trained)) == JOBS[name]
    box.assert_same_bits(run, storm.runs["none"])
    assert mlflow_status(storm.desk.uri, "tiny") == {"FINISHED"}
