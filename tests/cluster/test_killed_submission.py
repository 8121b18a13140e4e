"""The process that submits a job is killed before, while or after the cluster takes it: one job comes of it."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from desk import experiment, wait_until
from slurm_box import wait_for

from sia.cluster.end_jobs import cancel_jobs, has_left, local_processes
from sia.cluster.profile import Profile
from sia.cluster.stage_job import TrainStage
from sia.cluster.submit import submit
from sia.errors import UserError
from sia.run.folder import RunFolder, run_of
from sia.run.records import Job
from sia.sweep.chain import plan_stage

# What happens at the first call of sbatch, whose parent is the submitting process; how often sbatch is called then.
FAULTS = {
    "before": ("kill -9 $PPID; exit 1", 2),
    "after": ('"$real" "$@"; kill -9 $PPID', 1),
    "meanwhile": ('kill -9 $PPID; sleep 1; exec "$real" "$@"', 1),
    "its driver, too": ('kill -9 $(ps -o ppid= -p $PPID | xargs ps -o ppid= -p); "$real" "$@"; kill -9 $PPID', 1),
}
DRIVER = """
import sys
from sia.cluster.profile import Profile
from sia.cluster.stage_job import TrainStage
from sia.cluster.submit import submit
submit(TrainStage(sys.argv[1], 1, 1), "slurm", Profile(partition="dev", timeout_min=20))
"""


@pytest.fixture
def new_run(tmp_path: Path, corpus: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], RunFolder]]:
    monkeypatch.setenv("SIA_RUNS", str(tmp_path / "runs"))
    runs = []

    def create() -> RunFolder:
        config = experiment(corpus, stages=[{"epochs": 1, "schedule": "calr"}])
        run = run_of(f"killed-{uuid4().hex[:8]}", config)
        run.create(config)
        plan_stage(run, 1)
        runs.append(run)
        return run

    yield create
    cancel_jobs([job for run in runs if (job := Job.read(run.stage(1).job)) is not None])


def task_of(run: RunFolder) -> TrainStage:
    return TrainStage(str(run.path), 1, threads=1)


@pytest.mark.slow
@pytest.mark.slurm
def test_one_slurm_job_comes_of_it_and_trains(
    new_run: Callable[[], RunFolder], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = {name: new_run() for name in FAULTS}
    for name, run in runs.items():
        with monkeypatch.context() as patch:
            submitted_with_a_fault(run, name, tmp_path / name, patch)
    for name, run in runs.items():
        wait_for(run.finished.exists, f"the end of the run whose submission was killed: {name}")
        assert {path.name for path in run.stage(1).path.iterdir()} == {
            *("checkpoints", "done.json", "job.json", "plan.json")
        }


def submitted_with_a_fault(run: RunFolder, name: str, folder: Path, patch: pytest.MonkeyPatch) -> None:
    what, calls = FAULTS[name]
    sbatch = folder / "bin" / "sbatch"
    sbatch.parent.mkdir(parents=True)
    sbatch.write_text(
        f"#!/bin/sh\nreal={shutil.which('sbatch')}\necho call >> '{folder}/calls'\n"
        f'mkdir \'{folder}/first\' 2>/dev/null || exec "$real" "$@"\n{what}\n'
    )
    sbatch.chmod(0o755)
    patch.setenv("PATH", f"{sbatch.parent}:{os.environ['PATH']}")
    driver = subprocess.run([sys.executable, "-c", DRIVER, str(run.path)])
    if driver.returncode:
        assert driver.returncode == -signal.SIGKILL and not run.stage(1).job.exists()
        submit(task_of(run), "slurm", Profile(partition="dev", timeout_min=20))
    named = ["squeue", "--noheader", "--format", "%i", "--name", task_of(run).name, "--states", "all"]
    found = subprocess.run(named, capture_output=True, text=True, check=True).stdout.split()
    job = Job.read(run.stage(1).job)
    assert job is not None and found == [job.job_id], name
    assert (folder / "calls").read_text().count("call") == calls, name


@pytest.mark.parametrize(
    "victim", ["$PPID", "$(ps -o ppid= -p $PPID)"], ids=["the process that submits", "the one that waits for it"]
)
def test_one_local_job_comes_of_it_and_trains(new_run: Callable[[], RunFolder], tmp_path: Path, victim: str) -> None:
    """Its setup lines are carried out by a child of the submitting process."""
    run = new_run()
    killing = f"{{ mkdir {tmp_path}/first && kill -9 {victim} || true; }}"
    submit(task_of(run), "local", Profile(setup=[killing, f"echo life >> {tmp_path}/lives"]))
    job = Job.read(run.stage(1).job)
    wait_until(run.finished.exists, 60, "the run's end")
    wait_until(lambda: has_left(job), 30, "the job's end")
    assert (tmp_path / "lives").read_text().split() == ["life"]


def test_a_process_that_is_killed_again_and_again_is_told(new_run: Callable[[], RunFolder]) -> None:
    run = new_run()
    with pytest.raises(UserError, match="killed 3 times") as caught:
        submit(task_of(run), "local", Profile(setup=["kill -9 $PPID; exit 1"]))
    assert "\n" not in str(caught.value) and not run.stage(1).job.exists()
    assert not local_processes(Job(job_id="0", folder=str(run.jobs), host=os.uname().nodename, cluster="local"))
