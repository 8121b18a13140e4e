"""A dry run refuses what the submission itself would refuse, and tells what that would begin."""

from pathlib import Path
from typing import Any

import pytest
from desk import Desk, values

from sia.cluster.launch import Launch
from sia.cluster.profile import Profile
from sia.run.lock import HeartbeatLock
from sia.run.records import Request
from sia.sweep.grid import load_grid
from sia.sweep.preflight import MOST_JOBS, Preflight


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Desk:
    monkeypatch.setenv("SIA_RUNS", str(tmp_path / "desk" / "runs"))
    return Desk(tmp_path / "desk")


def preflight(path: Path, cluster: str = "local", **profile: Any) -> Preflight:
    grid, launch = load_grid(path), Launch(cluster, Profile(**profile))  # type: ignore[arg-type]
    return Preflight(Request(grid=str(path)), grid, {point.run.name: launch for point in grid.points})


SUBMIT = ("submit.py", "--grid", "grid.yaml", "--cluster", "local", "--profile", "three.yaml")


@pytest.mark.parametrize(
    ("changed", "flags", "status", "said"),
    [
        ({}, (), 1, "training.batch_size 4 is no multiple of the 3 ranks"),
        ({"training.batch_size": 999}, (), 1, "training.batch_size 999 exceeds the"),
        ({"data.folder": "gone"}, ("--set", "training.batch_size=3"), 1, "gone: no prepared corpus there"),
        ({"model.frame_features": 13, "training.batch_size": 3}, (), 1, "its frames have 40 coefficients"),
        ({"training.batch_size": 3}, ("--detach",), 2, "--detach needs Slurm"),
        ({"training.batch_size": 3}, ("--profile", "none.yaml"), 1, "none.yaml: No such file"),
        ({"training.seed": -1}, (), 2, "training.seed: give 0 or more, not -1"),
        ({"training.batch_size": 3}, ("--profile", "two.yaml"), 2, "nodes is 2"),
    ],
)
def test_both_refuse_the_same(
    desk: Desk, corpus: Path, changed: dict[str, Any], flags: tuple[str, ...], status: int, said: str
) -> None:
    desk.write("grid.yaml", {"experiment": values(corpus, **changed)})
    desk.write("three.yaml", {"tasks_per_node": 3})
    desk.write("two.yaml", {"nodes": 2})
    for done in (desk.call(*SUBMIT, *flags), desk.call(*SUBMIT, *flags, "--dry-run")):
        assert done.returncode == status and said in done.stderr, done.stderr
        assert len(done.stderr.splitlines()) == 1 and not (desk.folder / "runs").exists()


def test_others_may_not_write_into_the_runs_and_the_tracker_is_known(desk: Desk, corpus: Path) -> None:
    desk.write("grid.yaml", {"experiment": values(corpus)})
    (desk.folder / "runs").mkdir()
    for flags in ((), ("--dry-run",)):
        (desk.folder / "runs").chmod(0o755)
        assert "name a tracker as MODULE:CLASS" in desk.call(*SUBMIT[:-2], *flags, SIA_TRACKER="none:None").stderr
        (desk.folder / "runs").chmod(0o777)
        assert "chmod -R go-w" in desk.call(*SUBMIT[:-2], *flags).stderr
    assert not desk.runs("grid")


def test_a_dry_run_tells_all_faults_and_what_would_begin(desk: Desk, corpus: Path) -> None:
    desk.write("grid.yaml", {"experiment": values(corpus, **{"data.folder": "gone"}), "seeds": [0, 1]})
    shown = desk.call(*SUBMIT[:-2], "--detach", "--dry-run")
    assert shown.returncode == 2 and len(shown.stderr.splitlines()) == 2, shown.stderr
    assert "for 2 runs" in shown.stdout and "GB are free" in shown.stdout and "--rehearse" in shown.stdout
    desk.write("grid.yaml", {"experiment": {"data": {"corpus": "scenes"}}})
    scenes = desk.call(*SUBMIT[:-2], "--dry-run")
    assert (scenes.returncode, scenes.stderr) == (0, "") and "corpora/scenes would be made first" in scenes.stdout
    assert [path.name for path in desk.folder.iterdir()] == ["grid.yaml"], "it is not made by a dry run"


@pytest.mark.parametrize(
    ("cluster", "profile", "jobs"),
    [
        ("local", {}, 5),
        ("slurm", {}, 5),
        ("slurm", {"chain_stages": False}, 10),
        ("slurm", {"tasks_per_node": 2, "runs_per_node": 2}, 3),
        ("local", {"tasks_per_node": 2, "runs_per_node": 2}, 1),
    ],
)
def test_jobs_are_counted(desk: Desk, corpus: Path, cluster: str, profile: dict[str, Any], jobs: int) -> None:
    path = desk.write("grid.yaml", {"experiment": values(corpus), "seeds": [*range(5)]})
    assert preflight(path, cluster, **profile).num_jobs() == jobs


def test_under_a_living_driver_no_job_would_begin(desk: Desk, corpus: Path) -> None:
    desk.write("grid.yaml", {"experiment": values(corpus)})
    (desk.folder / "runs" / "grid").mkdir(parents=True)
    with HeartbeatLock(desk.folder / "runs" / "grid" / "driver.lock"):
        shown = desk.call(*SUBMIT[:-2], "--dry-run")
    assert "is driven by process" in shown.stdout and "no job would begin" in shown.stdout
    assert (
        "1 job would begin" not in shown.stdout and "1 job would begin" in desk.call(*SUBMIT[:-2], "--dry-run").stdout
    )


def test_many_jobs_are_begun_after_a_question(desk: Desk, corpus: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    desk.write("one.yaml", {})
    desk.write("grid.yaml", {"experiment": values(corpus), "seeds": [*range(MOST_JOBS + 1)]})
    begun: list[int] = []
    monkeypatch.setattr("sia.sweep.drive.submit_sweep", lambda sweep, _: begun.append(len(sweep.runs)) or 0)
    submit = ("submit.py", "--grid", "grid.yaml", "--cluster", "local", "--profile", "one.yaml")
    refused = desk.call(*submit)
    assert refused.returncode == 2 and f"{MOST_JOBS + 1} jobs would begin" in refused.stderr
    assert "--yes" in refused.stderr and not begun and not (desk.folder / "runs").exists()
    assert desk.call(*submit, "--yes").returncode == 0 and begun == [MOST_JOBS + 1]


def test_a_run_that_cannot_be_read_and_one_that_asha_gave_up(desk: Desk, corpus: Path) -> None:
    path = desk.write("grid.yaml", {"experiment": values(corpus), "seeds": [0, 1]})
    damaged, stopped = (point.create() for point in load_grid(path).points)
    damaged.config.write_text("model: [")
    stopped.stopped.write_text("")
    assert preflight(path).actions == ["damaged", "damaged"]
