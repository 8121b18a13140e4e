"""The process that submits a job is killed before, while or after the cluster takes it: one job comes of it."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from desk import experiment, wait_until

from sia.cluster.end_jobs import cancel_jobs, has_left, local_processes
from sia.cluster.profile import Profile
from sia.cluster.stage_job import TrainStage
from sia.cluster.submit import submit
from sia.errors import UserError
from sia.run.folder import RunFolder, run_of
from sia.run.records import Job
from sia.sweep.chain import plan_stage

# What happens at the first call of sbatch, whose parent is the submitting process.
BEFORE = "kill -9 $PPID; exit 1"
AFTER = '"$real" "$@"; kill -9 $PPID'
MEANWHILE = 'kill -9 $PPID; sleep 3; exec "$real" "$@"'


@pytest.fixture
def run(tmp_path: Path, corpus: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RunFolder]:
    monkeypatch.setenv("SIA_RUNS", str(tmp_path / "runs"))
    config = experiment(corpus, stages=[{"epochs": 1, "schedule": "calr"}])
    run = run_of(f"killed-{uuid4().hex[:8]}", config)
    run.create(config)
    plan_stage(run, 1)
    yield run
    job = Job.read(run.stage(1).job)
    if job is not None:
        cancel_jobs([job])


def at_first(folder: Path, program: str, what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the first call of a program do something else."""
    script = folder / "bin" / program
    script.parent.mkdir(exist_ok=True)
    real = shutil.which(program)
    script.write_text(
        f"#!/bin/sh\nreal={real}\necho call >> {folder}/calls\n"
        f'mkdir {folder}/first 2>/dev/null || exec "$real" "$@"\n{what}\n'
    )
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{script.parent}:{os.environ['PATH']}")


def task_of(run: RunFolder) -> TrainStage:
    return TrainStage(str(run.path), 1, threads=1)


@pytest.mark.slurm
@pytest.mark.parametrize(
    ("what", "calls"), [(BEFORE, 2), (AFTER, 1), (MEANWHILE, 1)], ids=["before", "after", "meanwhile"]
)
def test_one_slurm_job_comes_of_it_and_trains(
    run: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str, calls: int
) -> None:
    at_first(tmp_path, "sbatch", what, monkeypatch)
    submit(task_of(run), "slurm", Profile(partition="dev", timeout_min=20))
    named = ["squeue", "--noheader", "--format", "%i", "--name", task_of(run).name, "--states", "all"]
    found = subprocess.run(named, capture_output=True, text=True, check=True).stdout.split()
    job = Job.read(run.stage(1).job)
    assert found == [job.job_id] and (tmp_path / "calls").read_text().count("call") == calls
    wait_until(run.finished.exists, 60, "the run's end")
    assert sorted(path.name for path in run.stage(1).path.iterdir()) == [
        "checkpoints",
        "done.json",
        "job.json",
        "plan.json",
    ]


@pytest.mark.slurm
def test_a_job_whose_driver_was_killed_too_is_found_by_the_next_submit(
    run: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    both = 'kill -9 $(ps -o ppid= -p $PPID | xargs ps -o ppid= -p); "$real" "$@"; kill -9 $PPID'
    at_first(tmp_path, "sbatch", both, monkeypatch)
    code = (
        "import sys; from sia.cluster.stage_job import TrainStage; from sia.cluster.profile import Profile; "
        "from sia.cluster.submit import submit; "
        "submit(TrainStage(sys.argv[1], 1, 1), 'slurm', Profile(partition='dev', timeout_min=20))"
    )
    driver = subprocess.run([sys.executable, "-c", code, str(run.path)])
    assert driver.returncode == -signal.SIGKILL and not run.stage(1).job.exists()
    submit(task_of(run), "slurm", Profile(partition="dev", timeout_min=20))
    assert (tmp_path / "calls").read_text().count("call") == 1
    wait_until(run.finished.exists, 60, "the run's end")


@pytest.mark.parametrize(
    "victim", ["$PPID", "$(ps -o ppid= -p $PPID)"], ids=["the process that submits", "the one that waits for it"]
)
def test_one_local_job_comes_of_it_and_trains(run: RunFolder, tmp_path: Path, victim: str) -> None:
    """Its setup lines are carried out by a child of the submitting process."""
    killing = f"{{ mkdir {tmp_path}/first && kill -9 {victim} || true; }}"
    submit(task_of(run), "local", Profile(setup=[killing, f"echo life >> {tmp_path}/lives"]))
    job = Job.read(run.stage(1).job)
    wait_until(run.finished.exists, 60, "the run's end")
    wait_until(lambda: has_left(job), 30, "the job's end")
    assert (tmp_path / "lives").read_text().split() == ["life"]


def test_a_process_that_is_killed_again_and_again_is_told(run: RunFolder, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="killed 3 times") as caught:
        submit(task_of(run), "local", Profile(setup=["kill -9 $PPID; exit 1"]))
    assert "\n" not in str(caught.value) and not run.stage(1).job.exists()
    assert not local_processes(Job(job_id="0", folder=str(run.jobs), host=os.uname().nodename, cluster="local"))
