"""A driver that is a Slurm job: what it is given, and who may ask for it. On a real Slurm: test_detach_slurm."""

from pathlib import Path

import pytest
import yaml

from sia.cluster.launch import Launch, local_profile
from sia.cluster.profile import Profile
from sia.errors import UsageError, UserError
from sia.run.lock import HeartbeatLock
from sia.run.records import Request
from sia.sweep.detach import LEAST_TIMEOUT_MIN, detach, driver_profile
from sia.sweep.grid import load_grid


@pytest.fixture
def grid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SIA_RUNS", str(tmp_path / "runs"))
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump({"study": "tiny"}))
    return tmp_path / "tiny.yaml"


def test_of_two_that_detach_at_once_one_is_refused(grid: Path, tmp_path: Path) -> None:
    lock = tmp_path / "runs" / "tiny" / "driver" / "detach.lock"
    with HeartbeatLock(lock), pytest.raises(UserError, match="study tiny is being detached already"):
        detach(load_grid(grid), Launch("slurm", local_profile()), Request(grid=str(grid)), None)


def test_without_slurm_it_says_what_to_do(grid: Path) -> None:
    with pytest.raises(UsageError, match="--detach needs Slurm"):
        detach(load_grid(grid), Launch("local", local_profile()), Request(grid=str(grid)), None)


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
