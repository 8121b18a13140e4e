"""Real local jobs under a real driver: cancelled alone and with the study, and submitted again by retry."""

import os
import pty
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from desk import Desk, assert_every_epoch_once, epoch_rows, in_mid_stage, job_of, values, wait_until
from written_runs import begin_run, experiment, finish_run, write_finished

from sia.atomic import read_json, write_json
from sia.cluster.launch import former_launch
from sia.errors import UsageError, UserError
from sia.operate.cancel import end, ending_of_run, ending_of_study
from sia.operate.retry import retry_launches, retryable
from sia.run.driver import driver_status
from sia.run.folder import RunFolder
from sia.run.lock import HeartbeatLock, holder_of
from sia.run.state import State, look

SUBMIT = ("submit.py", "--grid", "tiny.yaml", "--cluster", "local", "--profile", "one.yaml", "--scheduler", "none")


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SIA_RUNS", str(tmp_path / "runs"))
    return tmp_path / "runs"


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path / "desk")


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


def test_the_command_asks_first(desk: Desk) -> None:
    """Without a terminal it needs --yes; on one, only a y will do."""
    begin_run(desk.folder / "runs", "size", experiment())
    assert "nothing is under way" in desk.run("cancel.py", "size").stdout
    with HeartbeatLock(desk.folder / "runs" / "size" / "driver.lock"):
        done = desk.run("cancel.py", "DG2A64")
        assert done.returncode == 2 and "add --yes" in done.stderr and "no job yet" in done.stdout
        assert on_a_terminal(desk, "n\n", "cancel.py", "DG2A64") == 1
        assert on_a_terminal(desk, "\x04", "cancel.py", "DG2A64") == 1, "Ctrl-D is a no"
        (run,) = desk.runs("size")
        assert not run.stopped.exists()
        assert on_a_terminal(desk, "y\n", "cancel.py", "DG2A64") == 0
    assert read_json(run.stopped)["by"] == "cancel" and look(run).state == State.STOPPED


def on_a_terminal(desk: Desk, typed: str, *arguments: str) -> int:
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        desk.command(*arguments), cwd=desk.folder, env=desk.environment, stdin=theirs, stdout=subprocess.DEVNULL
    )
    os.close(theirs)
    os.write(ours, typed.encode())
    status = process.wait(30)
    os.close(ours)
    return status


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
    with pytest.raises(UsageError, match="give a name, or a part of one, that fits one run"):
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
            process_ended(process)


def processes_of(run: RunFolder) -> list[int]:
    """The processes whose command line names the run's folder."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        try:
            command, state = (
                (place / "cmdline").read_bytes(),
                (place / "stat").read_text().rpartition(")")[2].split()[0],
            )
        except OSError:
            continue
        if str(run.jobs).encode() in command and state != "Z":
            found.append(int(place.name))
    return found


def process_ended(pid: int) -> None:
    try:
        os.kill(pid, 9)
    except ProcessLookupError:
        return


def under_way(desk: Desk, known: RunFolder | None = None) -> RunFolder:
    others = [run for run in desk.runs("tiny") if known is None or run.path != known.path]
    return next((run for run in others if in_mid_stage(run)), None)


@pytest.mark.slow
def test_a_run_alone_then_the_study_then_a_retry(driven) -> None:
    desk, driver = driven
    first = wait_until(lambda: under_way(desk), 120, f"an epoch\n{desk.log}")
    assert len(processes_of(first)) >= 3, "a shell, a controller and a rank"

    cancelled = desk.run("cancel.py", first.name, "--yes", timeout=90)
    assert cancelled.returncode == 0, cancelled.stdout + cancelled.stderr
    assert f"local job {job_of(first)}" in cancelled.stdout and "ended; submit it again to go on" in cancelled.stdout
    assert not processes_of(first)
    assert look(first).state == State.STOPPED and not first.stage(1).failed.exists() and not first.lock.exists()
    saved = torch.load(first.stage(1).last, weights_only=True)["progress"]
    second = wait_until(lambda: under_way(desk, first), 120, f"the driver goes on with the next run\n{desk.log}")
    assert look(first).state == State.STOPPED, "and leaves the cancelled one out"

    shown = desk.run("status.py", "tiny").stdout
    assert f"driven by process {driver.pid} of {socket.gethostname()}" in shown and "by cancel" in shown
    assert desk.run("retry.py", "tiny").returncode == 1, "a driver lives"
    ended = desk.run("cancel.py", "tiny", "--yes", timeout=120)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert ended.stdout.index("driver of tiny: ended") < ended.stdout.index(f"tiny/{second.name}: ended")
    assert driver.wait(5) == 130 and "go on" in desk.log
    assert not processes_of(second) and "nothing is under way" in desk.run("cancel.py", "tiny").stdout

    log = desk.run("logs.py", second.name).stdout
    assert "stage 1 epoch 1: loss" in log
    epochs = len(epoch_rows(first))
    follower = subprocess.Popen(
        desk.command("logs.py", first.name, "-f"), cwd=desk.folder, env=desk.environment, stdout=subprocess.DEVNULL
    )
    follower.wait(20)  # a cancelled run has no more to say

    again = desk.start("retry.py", "tiny", "--only", first.name)
    try:
        # Two: it may have been cancelled at the last step of the first of them.
        wait_until(lambda: len(epoch_rows(first)) > epochs + 1, 120, f"two more epochs\n{desk.log}")
        assert look(second).state == State.STOPPED, "--only"
        assert holder_of(first.lock).cluster == "local"
        done = torch.load(first.stage(1).last, weights_only=True)["progress"]
        assert done["step"] > saved["step"] >= 12 * epochs
        assert desk.run("cancel.py", "tiny", "--yes", timeout=120).returncode == 0
        assert again.wait(10) == 130
    finally:
        again.kill()
        again.wait()
    rows = epoch_rows(first)
    assert_every_epoch_once(first, len(rows))


@pytest.mark.slow
def test_a_driver_that_is_deaf_to_ctrl_c_is_ended_all_the_same(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """As one that a script started in the background."""
    begin_run(desk.folder / "runs", "size", experiment())
    lock = desk.folder / "runs" / "size" / "driver.lock"
    code = "import signal, sys, time; from pathlib import Path; from sia.run.lock import HeartbeatLock\n"
    code += "signal.signal(2, signal.SIG_IGN); HeartbeatLock(Path(sys.argv[1])).acquire(); time.sleep(100)"
    driver = subprocess.Popen([sys.executable, "-c", code, str(lock)])
    try:
        wait_until(lambda: holder_of(lock), 20, "the lock")
        monkeypatch.setenv("SIA_RUNS", str(desk.folder / "runs"))
        monkeypatch.setattr("sia.operate.cancel.PATIENCE_SECONDS", 1.0)
        monkeypatch.setattr("sia.operate.cancel._left", reaping(driver))
        from sia.operate.cancel import end

        said: list[str] = []
        assert end(ending_of_study("size", []), said.append) and said[0] == "driver of size: ended"
    finally:
        driver.kill()
        driver.wait()


def reaping(driver: subprocess.Popen):
    """Waits as cancel does; a zombie of this process would count as alive."""
    from sia.operate import cancel

    ask = cancel._left

    def left(given, seconds: float) -> bool:
        found = ask(given, min(seconds, 1.0))
        driver.poll()
        return found or not driver_status("size").lives

    return left


@pytest.mark.slow
def test_a_run_that_began_after_the_question_is_ended_too(desk: Desk, corpus: Path, monkeypatch) -> None:
    """What was listed is not what is under way by the time of the answer."""
    monkeypatch.setenv("SIA_RUNS", str(desk.folder / "runs"))
    desk.write("one.yaml", {"tasks_per_node": 1})
    chains = [[{"epochs": epochs, "schedule": "calr"}] for epochs in (1, 5000)]
    desk.write("tiny.yaml", {"experiment": values(corpus), "grid": {"stages": chains}})
    driver = desk.start(*SUBMIT, "--max-concurrent", "1")
    first, second = sorted(
        wait_until(lambda: len(desk.runs("tiny")) == 2 and desk.runs("tiny"), 60, desk.log),
        key=lambda run: run.experiment().stages[0].epochs,
    )
    wait_until(lambda: job_of(first), 60, "the first run's job")
    asked = ending_of_study("tiny", desk.runs("tiny"))
    assert [run.name for run in asked.runs] in ([first.name], [])
    wait_until(lambda: in_mid_stage(second), 90, f"the second run\n{desk.log}")
    assert end(asked, print)
    assert driver.wait(30) == 130
    assert look(second).state == State.STOPPED and holder_of(second.lock) is None


@pytest.fixture
def on_slurm(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two runs whose jobs 17 and 18 are in a queue that pretends; a scancel that writes what it is told to `told`."""
    runs = [begin_run(desk.folder / "runs", "size", experiment(**{"training.seed": seed})) for seed in range(2)]
    for number, run in enumerate(runs, start=17):
        job = {"cluster": "slurm", "job_id": str(number), "host": "login", "folder": str(run.jobs)}
        write_json(run.stage(1).job, {**job, "name": f"size/{run.name}/1", "user": os.getuid()})
    folder = desk.folder / "bin"
    folder.mkdir()
    lines = [f"{number}|RUNNING|None|{os.getuid()}|size/{run.name}/1" for number, run in enumerate(runs, start=17)]
    (folder / "queued").write_text("\n".join(lines) + "\n")
    answers = {
        "squeue": f"cat {folder}/queued",
        "scancel": f"cat {folder}/slow 2>/dev/null && sleep 30; : > {folder}/queued",
    }
    for name, does in answers.items():
        desk.write(f"bin/{name}", f'#!/bin/sh\necho "$*" >> {folder}/{name}.calls\n{does}\n').chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    desk.environment["PATH"] = os.environ["PATH"]
    return folder


def test_a_study_of_jobs_is_ended_by_one_call(desk: Desk, on_slurm: Path) -> None:
    done = desk.run("cancel.py", "size", "--yes")
    assert done.returncode == 0 and done.stdout.count("ended; submit it again") == 2, done.stdout + done.stderr
    assert (on_slurm / "scancel.calls").read_text() == "17 18\n"


def test_a_scancel_that_is_slow_is_asked_again_and_told_of(
    desk: Desk, on_slurm: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SIA_RUNS", str(desk.folder / "runs"))
    monkeypatch.setattr("sia.cluster.end_jobs.SCANCEL_SECONDS", 0.2)
    monkeypatch.setattr("sia.operate.cancel.AGAIN_SECONDS", 0.2)
    monkeypatch.setattr("sia.operate.cancel.WAIT_SECONDS", 3.0)
    (on_slurm / "slow").touch()
    said: list[str] = []
    assert not end(ending_of_study("size", desk.runs("size")), said.append)
    calls = (on_slurm / "scancel.calls").read_text().splitlines()
    assert len(calls) > 1 and set(calls) == {"17 18"}
    assert all("job " in line and "was not told: scancel did not answer" in line for line in said)


def test_a_driver_whose_number_is_a_strangers_now_is_left_alone(desk: Desk, on_slurm: Path) -> None:
    job = {"cluster": "slurm", "job_id": "19", "host": "login", "folder": "x", "user": os.getuid()}
    write_json(desk.folder / "runs" / "size" / "driver.json", {**job, "name": "driver of size"})
    with open(on_slurm / "queued", "a") as queued:
        queued.write(f"19|RUNNING|None|{os.getuid()}|somebody's\n")
    assert "driven by" not in desk.run("status.py", "size").stdout
    assert desk.run("cancel.py", "size", "--yes").returncode == 0
    assert (on_slurm / "scancel.calls").read_text() == "17 18\n"
