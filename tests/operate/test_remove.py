"""Runs and studies are deleted as a whole, on purpose, and never while anybody works on them."""

import json
import shutil
from pathlib import Path

import pytest
from desk import Desk
from written_runs import begin_run, experiment, finish_run

from sia.atomic import write_json
from sia.errors import UserError
from sia.operate.clean import remove_runs, whole_runs
from sia.run.lock import HeartbeatLock


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    desk = Desk(tmp_path / "desk")
    finish_run(desk.folder / "runs", "size", experiment())
    begin_run(desk.folder / "runs", "size", experiment(**{"training.seed": 1}))
    return desk


def test_nothing_goes_unless_it_is_told_to(desk: Desk) -> None:
    before = desk.runs("size")
    assert before[0].name in desk.run("clean.py", "size", "--remove", "--dry-run").stdout
    assert "nothing was done" in desk.run("clean.py", "size", "--remove").stderr
    assert desk.run("clean.py", "--remove", "--yes").returncode == 2, "which?"
    assert desk.runs("size") == before


def test_a_run_and_then_the_study(desk: Desk) -> None:
    first, second = desk.runs("size")
    write_json(first.path.parent / "driver.json", {"cluster": "local", "job_id": "1", "host": "gone", "folder": "x"})
    done = desk.run("clean.py", first.name, "--remove", "--yes")
    assert done.returncode == 0 and "1 runs deleted" in done.stdout and "MLflow keeps its rows" in done.stdout
    assert desk.runs("size") == [second]
    assert desk.run("clean.py", "size", "--remove", "--yes").returncode == 0
    assert list((desk.folder / "runs").iterdir()) == []


def test_a_run_at_work_or_driven_stays(desk: Desk) -> None:
    first, second = desk.runs("size")
    with HeartbeatLock(second.lock, job_id="17", stage=1):
        done = desk.run("clean.py", second.name, "--remove", "--yes")
        assert done.returncode == 1 and "it is running or pending; end it first" in done.stderr
    with HeartbeatLock(first.path.parent / "driver.lock"):
        done = desk.run("clean.py", second.name, "--remove", "--yes")
        assert done.returncode == 1 and "driven by process" in done.stderr
    assert desk.runs("size") == [first, second]


def test_a_run_that_was_marked_as_stopped_stays_while_its_job_holds_it(desk: Desk) -> None:
    _, second = desk.runs("size")
    write_json(second.stopped, {"by": "cancel"})
    with HeartbeatLock(second.lock, job_id="17", cluster="slurm", stage=1):
        done = desk.run("clean.py", second.name, "--remove", "--yes")
        assert done.returncode == 1 and "it is running or pending; end it first" in done.stderr
        shown = desk.run("status.py", "size", "--json").stdout
        (run,) = [one for one in json.loads(shown)[0]["runs"] if one["run"] == second.name]
        assert (run["state"], run["job_id"], run["reason"]) == ("running", "17", "being ended")
    assert second.config.exists()
    assert desk.run("clean.py", second.name, "--remove", "--yes").returncode == 0


def files_of(*folders: Path) -> int:
    return sum(not path.is_dir() or path.is_symlink() for folder in folders for path in folder.rglob("*"))


@pytest.fixture
def driver_files(desk: Desk) -> Path:
    """What a detached driver left in the study's folder."""
    study = desk.folder / "runs" / "size"
    write_json(study / "driver.json", {"cluster": "local", "job_id": "1", "host": "gone", "folder": "x"})
    (study / "driver").mkdir()
    (study / "driver" / "17_0_log.out").write_text("drives")
    return study


def test_the_question_counts_every_file_that_goes(desk: Desk, driver_files: Path) -> None:
    count = files_of(driver_files)
    shown = desk.run("clean.py", "size", "--remove", "--dry-run").stdout
    lines = shown.splitlines()
    assert len(lines) == 3 + 1 and "size: what its driver left: 2 files" in lines[2]
    assert f"{count} files of 2 runs would go" in lines[3]
    done = desk.run("clean.py", "size", "--remove", "--yes")
    assert done.returncode == 0 and "2 runs deleted" in done.stdout
    assert not driver_files.exists()


def test_what_is_not_a_runs_stays_and_so_does_its_folder(desk: Desk, driver_files: Path) -> None:
    for name in ("thesis.pdf", "photographs/one.jpg", "notes-0123456789/thesis.pdf"):
        (driver_files / name).parent.mkdir(exist_ok=True)
        (driver_files / name).write_text("mine")
    done = desk.run("clean.py", "size", "--remove", "--yes")
    assert done.returncode == 0 and f"{driver_files}: stays, for what else is in it" in done.stderr
    left = sorted(str(path.relative_to(driver_files)) for path in driver_files.rglob("*") if path.is_file())
    assert left == ["notes-0123456789/thesis.pdf", "photographs/one.jpg", "thesis.pdf"]


def test_a_folder_that_is_no_run_of_this_runs_folder_is_refused(desk: Desk) -> None:
    """Whatever it is called, and however its path is written."""
    run = desk.runs("size")[0]
    runs = desk.folder / "runs"
    elsewhere = desk.folder.parent / "keep"
    places = [elsewhere / "myrun", runs / "backup", runs / "size" / "copy", runs / ".code" / run.name]
    places += [elsewhere / "size" / run.name, runs / "size" / "deep" / run.name]
    for place in places:
        shutil.copytree(run.path, place)
    before = files_of(desk.folder, elsewhere)
    for place in (*places, "runs/size/../backup", "../keep/myrun"):
        done = desk.run("clean.py", str(place), "--remove", "--yes")
        assert done.returncode == 1 and f"no run of {runs}" in done.stderr, place
    assert files_of(desk.folder, elsewhere) == before
    for place in places[2:4]:
        shutil.rmtree(place)
    done = desk.run("clean.py", f"runs/size/../size/{run.name}/", run.name, "--remove", "--yes")
    assert done.returncode == 0 and "1 runs deleted" in done.stdout and not run.path.exists()


@pytest.mark.parametrize("of", ["study", "run"])
def test_nothing_is_deleted_behind_a_link(desk: Desk, of: str) -> None:
    runs, kept = desk.folder / "runs", desk.folder.parent / "kept"
    run = desk.runs("size")[0]
    link = runs / "size" if of == "study" else run.path
    link.rename(kept)
    link.symlink_to(kept)
    before = files_of(kept)
    for name in (run.name, "size", str(run.path)):
        done = desk.run("clean.py", name, "--remove", "--yes")
        assert done.returncode == 1 and f"{link}: a symbolic link" in done.stderr
    assert files_of(kept) == before and link.is_symlink()


def test_runs_may_lie_behind_a_link_as_a_whole(desk: Desk) -> None:
    runs, scratch = desk.folder / "runs", desk.folder.parent / "scratch"
    runs.rename(scratch)
    runs.symlink_to(scratch)
    assert desk.run("clean.py", "size", "--remove", "--yes").returncode == 0
    assert list(scratch.iterdir()) == []


def test_of_a_link_in_a_run_the_link_goes(desk: Desk) -> None:
    run, corpus = desk.runs("size")[0], desk.folder.parent / "corpus"
    corpus.mkdir()
    (corpus / "shard.h5").write_text("precious")
    (run.path / "corpus").symlink_to(corpus)
    (run.path / "dangling").symlink_to("nowhere")
    done = desk.run("clean.py", run.name, "--remove", "--yes")
    assert done.returncode == 0 and not run.path.exists() and (corpus / "shard.h5").exists()


def test_what_came_after_the_question_stays(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIA_RUNS", str(desk.folder / "runs"))
    first, second = desk.runs("size")
    groups = whole_runs([first, second])
    (first.path / "stages" / "thesis.pdf").write_text("mine")
    with HeartbeatLock(second.lock, job_id="17", stage=1), pytest.raises(UserError, match="running or pending"):
        remove_runs(groups)
    assert [path for path in first.path.rglob("*") if path.is_file()] == [first.path / "stages" / "thesis.pdf"]
    assert second.config.exists()
    assert remove_runs(whole_runs([second])) == [second.path.parent]
    assert desk.runs("size") == []
