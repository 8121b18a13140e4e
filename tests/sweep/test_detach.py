"""A driver that is a Slurm job: it outlives the shell, is requeued, waits for another job, and can be cancelled."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from desk import Desk, assert_every_epoch_once, in_mid_stage, job_of, mlflow_history, values, wait_until

from sia.atomic import read_json
from sia.cluster.launch import Launch, local_profile
from sia.cluster.profile import Profile
from sia.config import read_yaml
from sia.errors import UsageError, UserError
from sia.run.folder import RunFolder
from sia.run.lock import NOBODY_KNOWS, HeartbeatLock, living_holder
from sia.sweep.detach import LEAST_TIMEOUT_MIN, detach, driver_profile, frozen_grid
from sia.sweep.grid import load_grid


def slurm(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, timeout=30, check=True).stdout.strip()


@pytest.fixture
def desk(tmp_path: Path, corpus: Path) -> Iterator[Desk]:
    desk = Desk(tmp_path / "desk")
    desk.write("small.yaml", {"partition": "dev", "timeout_min": 20})
    desk.write("sweeps.yaml", {"study": "tiny", "experiment": values(corpus), "profile": "desk/small.yaml"})
    yield desk
    jobs = [job_of(run, number) for run in desk.runs("tiny") for number in (1, 2)] + [driver(desk)]
    subprocess.run(["scancel", *[job for job in jobs if job]], capture_output=True)


def driver(desk: Desk) -> str:
    return str((read_json(desk.folder / "runs" / "tiny" / "driver.json") or {"job_id": ""})["job_id"])


def detached(desk: Desk, *flags: str) -> str:
    done = desk.run("submit.py", "--grid", "sweeps.yaml", "--cluster", "slurm", "--detach", *flags)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"job {driver(desk)} drives study tiny" in done.stdout
    return driver(desk)


def restarts(job: str) -> int:
    told = subprocess.run(["scontrol", "show", "job", job], capture_output=True, text=True).stdout
    return int(told.partition("Restarts=")[2].split()[0]) if "Restarts=" in told else 0


def run_in_mid_stage(desk: Desk) -> RunFolder:
    run = wait_until(lambda: next(iter(desk.runs("tiny")), None), 90, "the driver's run folder")
    wait_until(lambda: in_mid_stage(run), 60, "the first stage")
    return run


@pytest.mark.slow
@pytest.mark.slurm
def test_a_detached_driver_ends_the_study_though_it_is_requeued(desk: Desk) -> None:
    job = detached(desk, "--set", "stages=[{epochs: 40, schedule: calr}, {epochs: 1, schedule: calr}]")
    run = run_in_mid_stage(desk)
    second = desk.run("submit.py", "--grid", "sweeps.yaml", "--cluster", "slurm", "--detach")
    assert second.returncode == 1 and "already" in second.stderr
    first_job = job_of(run)
    slurm("scancel", "--signal=USR2", job)
    wait_until(lambda: restarts(job) == 1, 60, "the driver's requeue")
    wait_until(run.finished.exists, 180, "the run's end")
    assert job_of(run) == first_job, "the driver attached to its job"
    assert_every_epoch_once(run, 41)
    wait_until(lambda: driver_left(job), 60, "the driver's end")
    assert mlflow_history(desk.uri, "tiny")[run.name]["train/loss"] == list(range(1, 42))


@pytest.mark.slow
@pytest.mark.slurm
def test_a_driver_is_requeued_by_a_term_and_ended_by_a_scancel(desk: Desk) -> None:
    job = detached(desk, "--set", "stages=[{epochs: 4000, schedule: calr}]")
    run = run_in_mid_stage(desk)
    first_job = job_of(run)
    slurm("scancel", "--signal=TERM", job)
    wait_until(lambda: restarts(job) == 1, 60, "the driver's requeue")
    wait_until(lambda: slurm("squeue", "-h", "-j", job, "-o", "%T") == "RUNNING", 60, "its second life")
    lock = desk.folder / "runs" / "tiny" / "driver.lock"
    wait_until(lambda: (living_holder(lock) or NOBODY_KNOWS).job_id == job, 60, "it drives")
    assert job_of(run) == first_job, "it attached to its job"
    slurm("scancel", job)
    wait_until(lambda: driver_left(job), 90, "the end of a driver that was cancelled")


def driver_left(job: str) -> bool:
    return not subprocess.run(["squeue", "-h", "-j", job], capture_output=True, text=True).stdout.strip()


@pytest.mark.slow
@pytest.mark.slurm
def test_a_driver_waits_for_the_job_it_depends_on(desk: Desk) -> None:
    before = slurm("sbatch", "--parsable", "--partition=dev", "--output=/dev/null", "--hold", "--wrap", "true")
    try:
        job = detached(desk, "--dependency", f"afterok:{before}")
        assert slurm("squeue", "-h", "-j", job, "-o", "%T %r") == "PENDING Dependency"
        assert not desk.runs("tiny")
        here = desk.run("submit.py", "--grid", "sweeps.yaml", "--cluster", "slurm")
        assert here.returncode == 1 and f"already driven by job {job}" in here.stderr
        slurm("scontrol", "release", before)
        wait_until(lambda: desk.runs("tiny"), 90, "the driver's start")
    finally:
        subprocess.run(["scancel", before], capture_output=True)


def test_of_two_that_detach_at_once_one_is_refused(desk: Desk) -> None:
    folder = desk.folder / "runs" / "tiny" / "driver"
    folder.mkdir(parents=True)
    with HeartbeatLock(folder / "detach.lock"), pytest.raises(UserError, match="study tiny is being detached already"):
        launch = Launch("slurm", local_profile())
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("SIA_RUNS", str(desk.folder / "runs"))
            detach(load_grid(desk.folder / "sweeps.yaml"), desk.folder / "sweeps.yaml", launch, [], None)


def test_without_slurm_it_says_what_to_do(tmp_path: Path, corpus: Path) -> None:
    path = tmp_path / "tiny.yaml"
    path.write_text(f"experiment: {{data: {{folder: {corpus}}}}}\n")
    with pytest.raises(UsageError, match="--detach needs Slurm"):
        detach(load_grid(path), path, Launch("local", local_profile()), [], None)


def test_the_driver_is_given_the_grid_as_it_was(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """With profiles that are found from anywhere, those of single points too."""
    home = desk.folder.parent / "sia"
    (home / "slurm").mkdir(parents=True)
    for name in ("gpu", "large", "small"):
        (home / "slurm" / f"{name}.yaml").touch()
    where = [{"match": {"model.gru_layers": 2}, "profile": "slurm/large.yaml"}]
    values = {"profile": "slurm/gpu.yaml", "where": where, "miniature": {"profile": "slurm/small.yaml"}}
    frozen = frozen_grid(values, home / "sweeps" / "size.yaml", "mine")
    assert frozen["study"] == frozen["miniature"]["study"] == "mine"
    assert frozen["profile"] == str(home / "slurm" / "gpu.yaml")
    assert frozen["where"][0]["profile"] == str(home / "slurm" / "large.yaml")
    assert frozen["miniature"]["profile"] == str(home / "slurm" / "small.yaml")
    assert read_yaml(desk.folder / "sweeps.yaml")["profile"] == "desk/small.yaml"


def test_a_driver_outlives_the_grace_of_its_lost_jobs() -> None:
    jobs = Profile(partition="gpu", timeout_min=1, gpus_per_node=8, environment={"A": "1"})
    profile = driver_profile(jobs, "afterok:7")
    assert (profile.timeout_min, profile.gpus_per_node, profile.partition) == (LEAST_TIMEOUT_MIN, 0, "gpu")
    assert profile.sbatch == {"dependency": "afterok:7"} and profile.environment == {"A": "1"}
    assert driver_profile(Profile(timeout_min=600), None).timeout_min == 600


def test_a_driver_keeps_what_may_be_mandatory_and_nothing_that_makes_it_large() -> None:
    kept = {"reservation": "course", "wckey": "a", "mail-type": "END", "nice": 5}
    large = {
        "gres": "gpu:8",
        "gpus-per-task": 1,
        "exclusive": True,
        "mem-per-cpu": "4G",
        "licenses": "x",
        "mem_bind": 1,
    }
    jobs = Profile(constraint="a100&ib", account="x", nodes=4, sbatch={**kept, **large, "requeue": False})
    profile = driver_profile(jobs, None)
    assert (profile.constraint, profile.account, profile.nodes) == ("a100&ib", "x", 1)
    assert profile.sbatch == kept
    assert driver_profile(jobs, "afterok:7").sbatch == {**kept, "dependency": "afterok:7"}


@pytest.mark.slow
@pytest.mark.slurm
def test_a_cluster_that_demands_a_flag_takes_the_driver(desk: Desk) -> None:
    """As a plugin of a cluster demands it: without the flag sbatch takes no job."""
    plugin = desk.folder.parent / "bin" / "sbatch"
    plugin.parent.mkdir()
    script = '#!/bin/sh\ngrep -q -- --reservation "$1" || { echo "sbatch: error: no reservation" >&2; exit 1; }\n'
    plugin.write_text(script + 'echo "Submitted batch job 4294967290"\n')
    plugin.chmod(0o755)
    desk.environment["PATH"] = f"{plugin.parent}:{os.environ['PATH']}"
    desk.write("small.yaml", {"partition": "dev", "timeout_min": 20, "sbatch": {"reservation": "course"}})
    assert detached(desk) == "4294967290"
