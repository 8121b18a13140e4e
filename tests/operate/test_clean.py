"""What clean deletes and what it never does; links, sizes and the command's questions on real folders."""

import os
import tempfile
import time
import zipfile
from pathlib import Path

import pytest
from desk import Desk
from hypothesis import given, settings
from hypothesis import strategies as st
from written_runs import begin_run, end_stage, epoch_row, experiment, finish_run, plan_stage

from sia.atomic import write_json, write_json_lines
from sia.checkpoint.chosen import choose_checkpoint
from sia.config import Stage
from sia.errors import UsageError, UserError
from sia.operate.clean import freed_bytes, leftovers_of_run, leftovers_of_studies
from sia.operate.retention import Policy, removable
from sia.run.folder import RunFolder
from sia.run.lock import HeartbeatLock
from sia.run.records import StagePlan
from sia.run.row_files import append_row

DAY = 24 * 3600


def with_checkpoints(run: RunFolder, *stages: int) -> RunFolder:
    """In each stage 1 kB of best, last, and two epochs' weights; of stage 2, best is another name of last."""
    for number in stages:
        stage = run.stage(number)
        stage.last.parent.mkdir(parents=True, exist_ok=True)
        for path in (stage.last, stage.weights_of_epoch(10 * number), stage.weights_of_epoch(10 * number + 5)):
            path.write_bytes(bytes(1000))
        if number == 2:
            os.link(stage.last, stage.best)
        else:
            stage.best.write_bytes(bytes(1000))
    return run


def gone(run: RunFolder, policy: Policy) -> list[str]:
    return [str(path.relative_to(run.path)).replace("/checkpoints", "") for path in removable(run, policy)]


EPOCHS_OF_1, EPOCHS_OF_2 = ([f"stages/{n}/epoch-00{n}0.pt", f"stages/{n}/epoch-00{n}5.pt"] for n in (1, 2))


@pytest.mark.parametrize(
    ("keep", "every", "expected"),
    [
        # A finished run keeps its bests and its final last.
        (None, None, [*EPOCHS_OF_1, "stages/1/last.pt", *EPOCHS_OF_2]),
        ("best,last", None, [*EPOCHS_OF_1, *EPOCHS_OF_2]),
        ("best", None, [*EPOCHS_OF_1, "stages/1/last.pt", *EPOCHS_OF_2, "stages/2/last.pt"]),
        ("last", 10, ["stages/1/best.pt", EPOCHS_OF_1[1], "stages/2/best.pt", EPOCHS_OF_2[1]]),
        (None, 5, ["stages/1/last.pt"]),
    ],
)
def test_a_policy_decides(root: Path, keep: str, every: int, expected: list[str]) -> None:
    run = with_checkpoints(finish_run(root, "size", experiment()), 1, 2)
    assert gone(run, Policy.parse(keep, every)) == expected


@pytest.mark.parametrize(("keep", "every"), [("worst", None), ("best,", None), ("", None), (None, 0), (None, -1)])
def test_a_wrong_policy_is_a_usage_error(keep: str, every: int) -> None:
    with pytest.raises(UsageError):
        Policy.parse(keep, every)


@pytest.mark.parametrize("keep", ["best", "last"])
def test_an_unfinished_run_keeps_what_it_goes_on_with(root: Path, keep: str) -> None:
    """In stage 2: its last, and the bests, of which the test split is measured with one."""
    run = begin_run(root, "size", experiment())
    end_stage(run, 1)
    plan_stage(run, 2, experiment().stages[1], 3, 2)
    with_checkpoints(run, 1, 2)
    left = set(run.path.rglob("*.pt")) - set(removable(run, Policy.parse(keep, None)))
    assert {run.stage(1).best, run.stage(2).best, run.stage(2).last} <= left
    assert (run.stage(1).last in left) == (keep == "last")


@pytest.mark.parametrize(("start_from", "name"), [("epoch=15", "epoch-0015.pt"), ("last", "last.pt")])
@pytest.mark.parametrize("planned", [True, False])
def test_where_a_stage_that_is_not_done_starts_stays(root: Path, start_from: str, name: str, planned: bool) -> None:
    stages = [{"epochs": 20}, {"epochs": 5, "start_from": start_from}]
    run = begin_run(root, "size", experiment(stages=stages))
    end_stage(run, 1)
    if planned:
        StagePlan(
            stage=Stage(**stages[1]), first_epoch=20, start_checkpoint=f"stages/1/checkpoints/{name}", start_lr=1e-4
        ).write(run.stage(2).plan)
    with_checkpoints(run, 1)
    assert run.stage(1).last.with_name(name) not in removable(run, Policy.parse("best", None))


def test_a_run_at_work_or_driven_keeps_all(root: Path) -> None:
    run = with_checkpoints(begin_run(root, "size", experiment()), 1)
    assert gone(run, Policy()) == EPOCHS_OF_1
    with HeartbeatLock(run.lock, job_id="1", stage=1):
        assert removable(run, Policy()) == []
    with HeartbeatLock(run.path.parent / "driver.lock"):
        assert removable(run, Policy()) == []


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 5000), st.integers(1, 3), st.integers(0, 3)), max_size=6))
def test_freed_bytes_are_what_the_disk_has_more(files: list[tuple[int, int, int]]) -> None:
    """Naively: delete them, and sum what is left. Of each file: its size, its names, and how many of them go."""
    with tempfile.TemporaryDirectory() as name:
        folder, doomed = Path(name), []
        for index, (size, names, going) in enumerate(files):
            first = folder / f"{index}-0"
            first.write_bytes(bytes(size))
            for other in range(1, names):
                os.link(first, folder / f"{index}-{other}")
            doomed += [folder / f"{index}-{other}" for other in range(min(names, going))]
        before, told = on_disk(folder), freed_bytes(doomed)
        for path in doomed:
            path.unlink()
        assert told == before - on_disk(folder)


def on_disk(folder: Path) -> int:
    return sum({stat.st_ino: stat.st_size for stat in (path.stat() for path in folder.iterdir())}.values())


def test_choosing_a_checkpoint_goes_on_working(root: Path) -> None:
    run = with_checkpoints(finish_run(root, "size", experiment()), 1, 2)
    for path in (*run.path.rglob("*.pt"), run.stage(1).weights_of_epoch(1)):
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("weights", "1")
    assert choose_checkpoint(run, "epoch=1").path == run.stage(1).weights_of_epoch(1)
    for path in removable(run, Policy()):
        path.unlink()
    assert choose_checkpoint(run, "best").path == run.stage(2).best
    assert choose_checkpoint(run, "last").path == run.stage(2).last
    with pytest.raises(UserError, match="no checkpoint epoch=1; it kept best of stage 1, best of stage 2, last of"):
        choose_checkpoint(run, "epoch=1")


def aged(path: Path, seconds: float = 2 * DAY) -> Path:
    then = time.time() - seconds
    os.utime(path, (then, then))
    return path


def test_leftovers_are_torn_files_that_are_old_and_meeting_places(root: Path) -> None:
    run = finish_run(root, "size", experiment())
    torn = run.path / ".metrics.jsonl.0123abcd.tmp"
    torn.write_text("{")
    taken = run.path / ".writer.lock.0123"
    taken.write_text("{}")
    run.stage(1).rendezvous.mkdir()
    assert leftovers_of_run(run) == [run.stage(1).rendezvous]
    aged(torn), aged(taken)
    assert leftovers_of_run(run) == [torn, taken, run.stage(1).rendezvous]
    with HeartbeatLock(run.path.parent / "driver.lock"):
        assert leftovers_of_run(run) == [torn, taken]


def code_copy(root: Path, name: str, seconds: float = 2 * DAY) -> Path:
    (root / ".code" / name / "sia").mkdir(parents=True)
    return aged(root / ".code" / name, seconds)


def test_a_copy_of_the_code_stays_while_a_run_or_an_evaluation_names_it(root: Path) -> None:
    finished = finish_run(root, "size", experiment())
    unfinished = begin_run(root, "size", experiment(**{"training.seed": 1}))
    old, trained, used, measured = (code_copy(root, name) for name in ("0old", "trained", "used", "eval"))
    code_copy(root, "znew", 0)
    job = {"cluster": "local", "job_id": "1", "host": "gone", "folder": "x"}
    append_row(finished.provenance, {"stage": 1, "job_id": "1", "code": str(trained)})
    write_json(unfinished.stage(1).job, {**job, "code": str(used)})
    write_json(finished.path / "evaluations" / "abc-job.json", {**job, "code": str(measured)})
    assert leftovers_of_studies() == [old]
    with HeartbeatLock(root / "size" / "driver.lock"):
        assert leftovers_of_studies() == []
    unfinished.stage(1).job.write_text("{}")
    assert leftovers_of_studies() == [], "nobody knows what a damaged run names"


def test_a_copy_of_the_code_stays_by_whatever_path_the_runs_are_reached(root: Path) -> None:
    """A job names its code by the real path; runs/ is often a link, or was moved since."""
    run = finish_run(root, "size", experiment())
    root.rename(root.with_name("real"))
    root.symlink_to(root.with_name("real"))
    code = code_copy(root, "0123")
    assert leftovers_of_studies() == [code]
    append_row(run.provenance, {"stage": 1, "job_id": "1", "code": str(code.resolve())})
    assert leftovers_of_studies() == []


@pytest.fixture
def cleaned(desk: Desk) -> Desk:
    run = finish_run(desk.folder / "runs", "size", experiment())
    with_checkpoints(run, 1, 2)
    write_json_lines(run.metrics, [epoch_row(n, 1, n, 0.1) for n in (1, 2)])
    return desk


def test_the_command_deletes_nothing_unless_told_to(cleaned: Desk) -> None:
    before = sorted(cleaned.folder.rglob("*"))
    shown = cleaned.call("clean.py", "size", "--dry-run")
    assert shown.returncode == 0 and "5 files would go and free 0.0 MB" in shown.stdout
    assert "stages/1/checkpoints/epoch-0010.pt" in shown.stdout
    asked = cleaned.call("clean.py")
    assert asked.returncode == 2 and "add --yes" in asked.stderr
    assert sorted(cleaned.folder.rglob("*")) == before


def test_the_command_deletes_and_counts(cleaned: Desk) -> None:
    (run,) = cleaned.runs("size")
    done = cleaned.call("clean.py", run.name[:10], "--keep", "best", "--yes")
    assert done.returncode == 0 and "6 files deleted" in done.stdout
    assert sorted(run.path.rglob("*.pt")) == [run.stage(1).best, run.stage(2).best]
    assert "nothing to clean" in cleaned.call("clean.py", run.name, "--keep", "best", "--yes").stdout


def test_wrong_names(cleaned: Desk) -> None:
    assert cleaned.call("clean.py", "--keep", "all").returncode == 2
    assert cleaned.call("clean.py", "none").returncode == 1
