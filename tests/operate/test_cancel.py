"""Real local jobs under a real driver: cancelled alone and with the study, and submitted again by retry."""

import contextlib
import io
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from desk import Desk, assert_every_epoch_once, epoch_rows, in_mid_stage, job_of, values, wait_until
from written_runs import begin_run, experiment, finish_run, write_finished

from sia.atomic import read_json, write_json
from sia.cluster.end_jobs import processes
from sia.cluster.launch import former_launch
from sia.command import confirmed
from sia.errors import UsageError, UserError
from sia.operate.cancel import end, ending_of_run, ending_of_study
from sia.operate.retry import retry_launches, retryable
from sia.run.folder import RunFolder
from sia.run.lock import HeartbeatLock, holder_of
from sia.run.state import State, look

SUBMIT = ("submit.py", "--grid", "tiny.yaml", "--cluster", "local", "--profile", "one.yaml", "--scheduler", "none")


def gone() -> dict[str, str]:
    """A local job whose process has ended."""
    process = subprocess.Popen(["true"])
    process.wait()
    return {"cluster": "local", "job_id": str(process.pid), "host": socket.gethostname(), "folder": "/runs"}


def test_nothing_under_way_is_nothing_to_cancel(root: Path) -> None:
    run = finish_run(root, "size", experiment())
    waiting = begin_run(root, "size", experiment(**{"training.seed": 1}))
    assert not ending_of_study("size", [run, waiting])
    assert not ending_of_run(run) and not ending_of_run(waiting)
    with HeartbeatLock(root / "size" / "driver.lock"):
        assert ending_of_run(waiting) and not ending_of_run(run)


def test_a_driver_of_another_host_is_ended_there(root: Path) -> None:
    run = begin_run(root, "size", experiment())
    write_json(root / "size" / "driver.lock", {"host": "node3", "pid": 4711, "token": "t"})
    with pytest.raises(UserError, match=r"driven by process 4711 of node3; end it on that host: python jobs/cancel"):
        ending_of_study("size", [run])


@pytest.mark.parametrize(
    ("cluster", "said"), [("local", "a local job of node3 trains it"), ("debug", "press Ctrl-C there")]
)
def test_a_job_that_this_host_cannot_end_is_named(root: Path, cluster: str, said: str) -> None:
    run = begin_run(root, "size", experiment())
    write_json(run.lock, {"host": "node3", "pid": 4711, "token": "t", "job_id": "4711", "stage": 1})
    write_json(run.stage(1).job, {"cluster": cluster, "job_id": "4711", "host": "node3", "folder": str(run.jobs)})
    with pytest.raises(UserError, match=said):
        ending_of_run(run)


class Terminal(io.StringIO):
    """Where this was typed."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("typed", "answer"), [("y\n", True), ("Yes\n", True), ("n\n", False), ("\n", False), ("", False)]
)
def test_only_a_y_will_do_on_a_terminal(monkeypatch: pytest.MonkeyPatch, typed: str, answer: bool) -> None:
    monkeypatch.setattr("sys.stdin", Terminal(typed))
    assert confirmed(False, "end all of these?") == answer and confirmed(True, "")


def test_the_command_asks_first(desk: Desk) -> None:
    run = begin_run(desk.folder / "runs", "size", experiment())
    assert "nothing is under way" in desk.call("cancel.py", "size").stdout
    with HeartbeatLock(desk.folder / "runs" / "size" / "driver.lock"):
        done = desk.call("cancel.py", "DG2A64")
        assert done.returncode == 2 and "add --yes" in done.stderr and "no job yet" in done.stdout
        assert not run.stopped.exists()
        assert desk.call("cancel.py", "DG2A64", "--yes").returncode == 0
    assert read_json(run.stopped)["by"] == "cancel" and look(run).state == State.STOPPED


def test_retry_takes_what_ended_badly(root: Path) -> None:
    names = ("finished", "failed", "lost", "cancelled", "asha", "waiting")
    runs = {name: begin_run(root, "size", experiment(**{"training.seed": seed})) for seed, name in enumerate(names)}
    write_finished(runs["finished"], {})
    write_json(runs["failed"].stage(1).failed, {"error": "loss is nan"})
    write_json(runs["lost"].stage(1).job, gone())
    write_json(runs["cancelled"].stopped, {"by": "cancel"})
    write_json(runs["asha"].stopped, {"by": "asha"})
    wanted = {runs[name].path for name in ("failed", "lost", "cancelled")}
    assert {run.path for run in retryable("size", [])} == wanted
    assert retryable("size", [runs["lost"].name[:-2]]) == [runs["lost"]]
    assert retryable("size", [runs["lost"].name[-6:]]) == [runs["lost"]]
    with pytest.raises(UsageError, match="it is finished; there is nothing to retry"):
        retryable("size", [runs["finished"].name])
    with pytest.raises(UserError, match="DG2A64: 6 runs have that name"):
        retryable("size", ["DG2A64"])
    with pytest.raises(UserError, match="no run there"):
        retryable("sizes", [])
    with HeartbeatLock(root / "size" / "driver.lock"), pytest.raises(UserError, match="is driven by process"):
        retryable("size", [])


def test_retry_submits_each_run_as_it_was(root: Path) -> None:
    runs = [begin_run(root, "size", experiment(**{"training.seed": seed})) for seed in range(3)]
    for run, cores in zip(runs, (1, 1, 3), strict=True):
        write_json(run.launch, {"cluster": "local", "profile": {"cpus_per_task": cores, "timeout_min": 7}})
    launches = retry_launches(runs)
    assert [launches[run.name].profile.cpus_per_task for run in runs] == [1, 1, 3]
    assert launches[runs[0].name] is launches[runs[1].name], "they run the same code"
    assert launches[runs[2].name] == former_launch(runs[2], "local", None)


@pytest.fixture
def driven(desk: Desk, corpus: Path):
    """A study of two long runs on this machine, one at a time, in mid-stage; jobs are behind a shell that sets up."""
    desk.write("one.yaml", {"tasks_per_node": 1, "setup": ["export SET_UP=1"], "timeout_min": 60})
    chain = [{"epochs": 400, "schedule": "calr"}]
    desk.write("tiny.yaml", {"experiment": values(corpus, stages=chain), "grid": {"model.gru_layers": [1, 2]}})
    driver = desk.start(*SUBMIT, "--max-concurrent", "1")
    yield desk, driver
    driver.kill()
    driver.wait()
    for run in desk.runs("tiny"):
        for process in processes_of(run):
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)


def processes_of(run: RunFolder) -> list[int]:
    """The processes whose command line names the run's folder."""
    return [pid for pid, words in processes() if str(run.jobs) in "\0".join(words)]


def under_way(desk: Desk, known: RunFolder | None = None) -> RunFolder:
    others = [run for run in desk.runs("tiny") if known is None or run.path != known.path]
    return next((run for run in others if in_mid_stage(run)), None)


@pytest.mark.slow
def test_a_run_alone_then_the_study_then_a_retry(driven) -> None:
    desk, driver = driven
    first = wait_until(lambda: under_way(desk), 120, f"an epoch\n{desk.log}")
    assert len(processes_of(first)) >= 3, "a shell, a controller and a rank"

    cancelled = desk.call("cancel.py", first.name, "--yes")
    assert cancelled.returncode == 0, cancelled.stdout + cancelled.stderr
    assert f"local job {job_of(first)}" in cancelled.stdout
    assert "ended; to go on: python jobs/submit.py --again" in cancelled.stdout
    assert not processes_of(first)
    assert look(first).state == State.STOPPED and not first.stage(1).failed.exists() and not first.lock.exists()
    saved = torch.load(first.stage(1).last, weights_only=True)["progress"]
    second = wait_until(lambda: under_way(desk, first), 120, f"the driver goes on with the next run\n{desk.log}")
    assert look(first).state == State.STOPPED, "and leaves the cancelled one out"

    shown = desk.call("status.py", "tiny").stdout
    assert f"driven by process {driver.pid} of {socket.gethostname()}" in shown and "by cancel" in shown
    assert desk.call("retry.py", "tiny").returncode == 1, "a driver lives"
    ended = desk.call("cancel.py", "tiny", "--yes")
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert ended.stdout.index("driver of tiny: ended") < ended.stdout.index(f"tiny/{second.name}: ended")
    assert driver.wait(5) == 130 and "go on" in desk.log
    assert not processes_of(second) and "nothing is under way" in desk.call("cancel.py", "tiny").stdout
    assert "stage 1 epoch 1: loss" in desk.call("logs.py", second.name).stdout
    assert desk.call("logs.py", first.name, "-f").returncode == 0, "a cancelled run has no more to say"

    epochs, again = len(epoch_rows(first)), desk.start("retry.py", "tiny", "--only", first.name)
    try:
        # Two: it may have been cancelled at the last step of the first of them.
        wait_until(lambda: len(epoch_rows(first)) > epochs + 1, 120, f"two more epochs\n{desk.log}")
        assert look(second).state == State.STOPPED, "--only"
        assert holder_of(first.lock).cluster == "local"
        done = torch.load(first.stage(1).last, weights_only=True)["progress"]
        assert done["step"] > saved["step"] >= 12 * epochs
        assert desk.call("cancel.py", "tiny", "--yes").returncode == 0
        assert again.wait(10) == 130
    finally:
        again.kill()
        again.wait()
    assert_every_epoch_once(first, len(epoch_rows(first)))


@pytest.fixture
def queued(desk: Desk, tmp_path: Path, program: Callable[..., Path]) -> Path:
    """What squeue lists: the jobs 17 and 18 of two runs. scancel empties it, unless a file `slow` is beside it."""
    runs = [begin_run(desk.folder / "runs", "size", experiment(**{"training.seed": seed})) for seed in range(2)]
    lines = []
    for number, run in enumerate(runs, start=17):
        job = {"cluster": "slurm", "job_id": str(number), "host": "login", "folder": str(run.jobs)}
        write_json(run.stage(1).job, {**job, "name": f"size/{run.name}/1", "user": os.getuid()})
        lines.append(f"{number}|RUNNING|None|{os.getuid()}|size/{run.name}/1\n")
    listed = tmp_path / "queued"
    listed.write_text("".join(lines))
    program("squeue", f"cat {listed}")
    program("scancel", f"test -e {tmp_path}/slow && exec sleep 30; : > {listed}")
    desk.environment["PATH"] = os.environ["PATH"]
    return listed


DRIVES = """
import signal, sys, time; from pathlib import Path; from sia.run.lock import HeartbeatLock
signal.signal(signal.SIGINT, signal.SIG_IGN); HeartbeatLock(Path(sys.argv[1])).acquire(); time.sleep(100)
"""


def test_a_driver_that_is_deaf_to_ctrl_c_is_ended_and_what_began_after_the_question(
    desk: Desk, queued: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one that a script started in the background. What was listed is not what is under way by the answer."""
    monkeypatch.setenv("SIA_RUNS", str(desk.folder / "runs"))
    monkeypatch.setattr("sia.operate.cancel.PATIENCE_SECONDS", 1.0)
    lock = desk.folder / "runs" / "size" / "driver.lock"
    driver = subprocess.Popen([sys.executable, "-c", DRIVES, str(lock)])
    try:
        wait_until(lambda: holder_of(lock), 20, "the lock")
        said: list[str] = []
        assert end(ending_of_study("size", []), said.append) and said[0] == "driver of size: ended"
    finally:
        driver.kill()
        driver.wait()
    assert queued.with_name("scancel.log").read_text() == "17 18\n"
    assert {look(run).state for run in desk.runs("size")} == {State.STOPPED}


def test_a_scancel_that_is_slow_is_asked_again_and_told_of(
    desk: Desk, queued: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SIA_RUNS", str(desk.folder / "runs"))
    monkeypatch.setattr("sia.cluster.end_jobs.SCANCEL_SECONDS", 0.2)
    monkeypatch.setattr("sia.operate.cancel.AGAIN_SECONDS", 0.2)
    monkeypatch.setattr("sia.operate.cancel.WAIT_SECONDS", 3.0)
    queued.with_name("slow").touch()
    said: list[str] = []
    assert not end(ending_of_study("size", desk.runs("size")), said.append)
    calls = queued.with_name("scancel.log").read_text().splitlines()
    assert len(calls) > 1 and set(calls) == {"17 18"}
    assert all("job " in line and "was not told: scancel: no answer within" in line for line in said)


def test_a_driver_whose_number_is_a_strangers_now_is_left_alone(desk: Desk, queued: Path) -> None:
    job = {"cluster": "slurm", "job_id": "19", "host": "login", "folder": "x", "user": os.getuid()}
    write_json(desk.folder / "runs" / "size" / "driver.json", {**job, "name": "driver of size"})
    queued.write_text(f"{queued.read_text()}19|RUNNING|None|{os.getuid()}|somebody's\n")
    assert "driven by" not in desk.call("status.py", "size").stdout
    done = desk.call("cancel.py", "size", "--yes")
    assert done.returncode == 0 and done.stdout.count("ended; to go on: python jobs/") == 2, done.stdout + done.stderr
    assert queued.with_name("scancel.log").read_text() == "17 18\n", "one call"
