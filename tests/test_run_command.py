"""jobs/run.py: one grid point or one run, in the process of the command."""

import os
import pty
import select
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from desk import REPOSITORY, Desk, assert_every_epoch_once, epoch_rows, mlflow_history, values, wait_until

from sia.atomic import write_json
from sia.run.folder import RunFolder
from sia.run.state import State, look

LONG = [{"epochs": 200, "schedule": "calr"}]


@pytest.fixture
def desk(tmp_path, migrated_database):
    desk = Desk(tmp_path / "desk")
    shutil.copy(migrated_database, desk.folder / "mlflow.db")
    return desk


def write_grid(desk: Desk, corpus: Path, **dotted: object) -> Path:
    return desk.write("grid.yaml", {"experiment": values(corpus, **dotted), "grid": {"training.seed": [0, 1]}})


def test_without_a_point_the_points_are_listed_and_nothing_is_made(desk, corpus):
    shown = desk.call("run.py", "--grid", write_grid(desk, corpus))
    assert shown.returncode == 0, shown.stderr
    lines = [line.split() for line in shown.stdout.splitlines() if "DG1A8" in line]
    assert [line[0] for line in lines] == ["1", "2"]
    assert ["training.seed=0" in line for line in lines] == [True, False]
    assert not (desk.folder / "runs").exists()


@pytest.mark.slow
def test_one_point_stage_by_stage_and_its_run_by_name(desk, corpus):
    """Only the point's run is made; `--stage` ends before the next one; the run goes on by its name."""
    grid = write_grid(desk, corpus)
    first = desk.call("run.py", "--grid", grid, "--point", "2", "--stage", "1")
    assert first.returncode == 0, first.stderr
    (run,) = desk.runs("grid")
    assert run.experiment().training.seed == 1
    assert "stage 1 epoch 2" in first.stdout and "stage 2" not in first.stdout
    assert look(run).state == State.WAITING and len(epoch_rows(run)) == 2
    again = desk.call("run.py", run.name, "--stage", "1")
    assert again.returncode == 2 and "stage 2 comes next" in again.stderr
    assert_refused_while_held(desk, run, grid)
    rest = desk.call("run.py", run.name, "--cluster", "debug")
    assert rest.returncode == 0, rest.stderr
    assert run.finished.exists() and "stage 2 epoch 3" in rest.stdout and run.name in rest.stdout
    assert_every_epoch_once(run, 3)
    assert set(mlflow_history(desk.uri, "grid")) == {run.name, f"{run.name}/1", f"{run.name}/2"}
    assert "the run is finished" in desk.call("run.py", run.name, "--stage", "2").stderr


def assert_refused_while_held(desk: Desk, run: RunFolder, grid: Path) -> None:
    """By a job, or by a driver of the study; no other run is made."""
    holder = {"host": os.uname().nodename, "pid": os.getpid(), "job_id": "17", "stage": 2, "token": "t"}
    for lock, arguments, said in (
        (run.lock, (run.name,), "job 17 has it (running)"),
        (run.path.parent / "driver.lock", ("--grid", grid, "--point", "1"), "study grid is already driven"),
    ):
        write_json(lock, holder)
        refused = desk.call("run.py", *arguments)
        assert refused.returncode == 1 and said in refused.stderr and len(refused.stderr.splitlines()) == 1
        lock.unlink()
    assert len(desk.runs("grid")) == 1


@pytest.mark.slow
def test_a_ctrl_c_leaves_a_run_that_goes_on_at_once(desk, corpus):
    grid = write_grid(desk, corpus, stages=LONG)
    process = desk.start("run.py", "--grid", grid, "--point", "1")
    run = wait_until(lambda: next(iter(desk.runs("grid")), None), 30, "the run folder")
    wait_until(lambda: len(epoch_rows(run)) >= 2, 60, "two epochs")
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 130
    assert f"left: python jobs/run.py {run.path} goes on" in desk.log and "Traceback" not in desk.log
    assert look(run).state == State.WAITING and not run.lock.exists()
    done = len(epoch_rows(run))
    process = desk.start("run.py", run.path)
    wait_until(lambda: len(epoch_rows(run)) > done, 60, "the next epoch")
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 130
    assert_every_epoch_once(run, len(epoch_rows(run)))


@pytest.mark.slow
def test_breakpoint_stops_in_this_process_on_a_terminal(desk, corpus):
    """Nothing writes over the prompt while it waits; the training goes on after `c`, and `q` is no failure."""
    grid = write_grid(desk, corpus, stages=[{"epochs": 1, "schedule": "calr"}] * 2)
    process, ours = at_the_prompt(desk, grid)
    assert read_until(ours, "(Pdb)", 60).rstrip().endswith("(Pdb)")
    assert read_until(ours, "\0", 2.5) == "", "the live table of a sweep would write here"
    os.write(ours, b"c\n")
    assert "stage 1 epoch 1" in read_until(ours, "(Pdb)", 60)
    os.write(ours, b"q\ny\n")  # newer versions of Python ask whether to leave
    assert "left: python jobs/run.py" in read_until(ours, "was saved", 60)
    assert process.wait(30) == 130
    os.close(ours)
    (run,) = desk.runs("grid")
    assert (look(run).state, look(run).stage) == (State.WAITING, 2) and not run.stage(2).failed.exists()


def at_the_prompt(desk: Desk, grid: Path) -> tuple["subprocess.Popen[bytes]", int]:
    """The command as it reaches a breakpoint() in its training, and the terminal it is on."""
    code = (
        "import runpy, sys, sia.training.fit as fit; before = fit.train_stage\n"
        "def train_stage(*given):\n    breakpoint()\n    return before(*given)\n"
        "fit.train_stage = train_stage\nsys.argv[0] = sys.argv[1]; del sys.argv[1]\n"
        "runpy.run_path(sys.argv[0], run_name='__main__')"
    )
    command = [sys.executable, "-c", code, REPOSITORY / "jobs" / "run.py", "--grid", grid, "--point", "1"]
    ours, theirs = pty.openpty()
    streams = {"stdin": theirs, "stdout": theirs, "stderr": theirs}
    process = subprocess.Popen([*map(str, command)], cwd=desk.folder, env=desk.environment, **streams)
    os.close(theirs)
    return process, ours


def read_until(terminal: int, awaited: str, seconds: float) -> str:
    text, deadline = "", time.monotonic() + seconds
    while awaited not in text and (left := deadline - time.monotonic()) > 0:
        if select.select([terminal], [], [], left)[0]:
            text += os.read(terminal, 4096).decode()
    return text


def test_an_error_keeps_its_traceback_and_is_recorded(desk, corpus, monkeypatch):
    """What a debugger needs: a fault of the program is no line, but a traceback."""
    monkeypatch.setattr("sia.training.fit.train_stage", lambda *given: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        desk.call("run.py", "--grid", write_grid(desk, corpus), "--point", "1")
    (run,) = desk.runs("grid")
    assert look(run).state == State.FAILED and not run.lock.exists()
