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


@pytest.fixture
def study(desk: Desk) -> Path:
    """Its folder, with what a detached driver left in it."""
    study = desk.folder / "runs" / "size"
    write_json(study / "driver.json", {"cluster": "local", "job_id": "1", "host": "gone", "folder": "x"})
    (study / "driver").mkdir()
    (study / "driver" / "17_0_log.out").write_text("drives")
    return study


def files_of(*folders: Path) -> int:
    return sum(not path.is_dir() or path.is_symlink() for folder in folders for path in folder.rglob("*"))


def test_nothing_goes_unless_it_is_told_to(desk: Desk, study: Path) -> None:
    before = files_of(study)
    lines = desk.call("clean.py", "size", "--remove", "--dry-run").stdout.splitlines()
    assert len(lines) == 3 + 1 and "size: what its driver left: 2 files" in lines[2]
    assert f"{before} files of 2 runs would go" in lines[3], "every file that goes"
    assert "nothing was done" in desk.call("clean.py", "size", "--remove").stderr
    assert desk.call("clean.py", "--remove", "--yes").returncode == 2, "which?"
    assert files_of(study) == before


def test_a_run_and_then_the_study(desk: Desk, study: Path) -> None:
    first, second = desk.runs("size")
    done = desk.call("clean.py", first.name, "--remove", "--yes")
    assert done.returncode == 0 and "1 runs deleted" in done.stdout and "MLflow keeps its rows" in done.stdout
    assert desk.runs("size") == [second]
    assert desk.call("clean.py", "size", "--remove", "--yes").returncode == 0
    assert list((desk.folder / "runs").iterdir()) == []


def test_a_run_at_work_or_driven_stays(desk: Desk) -> None:
    """One that was marked as stopped, too, while its job holds it."""
    first, second = desk.runs("size")
    with HeartbeatLock(first.path.parent / "driver.lock"):
        done = desk.call("clean.py", second.name, "--remove", "--yes")
        assert done.returncode == 1 and "driven by process" in done.stderr
    write_json(second.stopped, {"by": "cancel"})
    with HeartbeatLock(second.lock, job_id="17", cluster="slurm", stage=1):
        done = desk.call("clean.py", second.name, "--remove", "--yes")
        assert done.returncode == 1 and "it is running or pending; end it first" in done.stderr
        shown = desk.call("status.py", "size", "--json").stdout
        (run,) = [one for one in json.loads(shown)[0]["runs"] if one["run"] == second.name]
        assert (run["state"], run["job_id"], run["reason"]) == ("running", "17", "being ended")
    assert desk.runs("size") == [first, second]
    assert desk.call("clean.py", second.name, "--remove", "--yes").returncode == 0


def test_what_is_not_a_runs_stays_and_so_does_its_folder(desk: Desk, study: Path) -> None:
    for name in ("thesis.pdf", "photographs/one.jpg", "notes-0123456789/thesis.pdf"):
        (study / name).parent.mkdir(exist_ok=True)
        (study / name).write_text("mine")
    done = desk.call("clean.py", "size", "--remove", "--yes")
    assert done.returncode == 0 and f"{study}: stays, for what else is in it" in done.stderr
    left = sorted(str(path.relative_to(study)) for path in study.rglob("*") if path.is_file())
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
        done = desk.call("clean.py", str(place), "--remove", "--yes")
        assert done.returncode == 1 and f"no run of {runs}" in done.stderr, place
    assert files_of(desk.folder, elsewhere) == before
    for place in places[2:4]:
        shutil.rmtree(place)
    done = desk.call("clean.py", f"runs/size/../size/{run.name}/", run.name, "--remove", "--yes")
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
        done = desk.call("clean.py", name, "--remove", "--yes")
        assert done.returncode == 1 and f"{link}: a symbolic link" in done.stderr
    assert files_of(kept) == before and link.is_symlink()


def test_runs_may_lie_behind_a_link_and_of_a_link_in_a_run_the_link_goes(desk: Desk) -> None:
    runs, scratch, corpus = desk.folder / "runs", desk.folder.parent / "scratch", desk.folder.parent / "corpus"
    corpus.mkdir()
    (corpus / "shard.h5").write_text("precious")
    (desk.runs("size")[0].path / "corpus").symlink_to(corpus)
    (desk.runs("size")[0].path / "dangling").symlink_to("nowhere")
    runs.rename(scratch)
    runs.symlink_to(scratch)
    assert desk.call("clean.py", "size", "--remove", "--yes").returncode == 0
    assert list(scratch.iterdir()) == [] and (corpus / "shard.h5").exists()


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
