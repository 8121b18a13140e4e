"""A Slurm that cannot be asked any more: its jobs are waited for, unless another cluster is asked for by name."""

import os
import time
from pathlib import Path

import pytest
from desk import Desk, values
from written_runs import begin_run, experiment

from sia.atomic import write_json
from sia.run.driver import driver_status
from sia.run.folder import RunFolder
from sia.run.lock import HeartbeatLock
from sia.run.queue import Queue
from sia.run.state import State, look
from sia.sweep.take_up import take_up

JOB = {"cluster": "slurm", "job_id": "17", "host": "login", "folder": "/runs"}


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunFolder:
    """Pending as job 17; this host has no squeue."""
    monkeypatch.setenv("SIA_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    for place in ("sia.run.queue", "sia.cluster.end_jobs"):
        monkeypatch.setattr(f"{place}.QUEUE", Queue())
    run = begin_run(tmp_path / "runs", "size", experiment())
    write_json(run.stage(1).job, {**JOB, "time": time.time()})
    write_json(run.path.parent / "driver.json", {**JOB, "job_id": "16"})
    return run


def taken_up(run: RunFolder, cluster: str, by_name: bool) -> State:
    take_up(run.study, [run], cluster, by_name, asha=False)  # type: ignore[arg-type]
    return look(run).state


def test_who_asks_for_another_cluster_by_name_takes_the_run_over(
    run: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    write_json(run.stage(1).failed, {"error": "loss is nan"})
    os.utime(run.stage(1).failed, (0, 0))
    assert driver_status("size").lives
    assert taken_up(run, "local", by_name=True) == State.WAITING
    assert not driver_status("size").lives
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 2 and f"size/{run.name}: taken over from job 17 of a Slurm that does not answer" in said[1]


def test_who_was_given_this_machine_waits_and_is_told_so(run: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    assert taken_up(run, "local", by_name=False) == State.PENDING
    said = capsys.readouterr().err
    assert "waits for job 17 of a Slurm that does not answer; --cluster local takes it over" in said


def test_slurm_itself_waits(run: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    assert taken_up(run, "slurm", by_name=True) == State.PENDING
    assert capsys.readouterr().err == ""


def test_a_job_that_gives_a_sign_of_life_keeps_its_run(run: RunFolder) -> None:
    with HeartbeatLock(run.lock, job_id="17", stage=1):
        assert taken_up(run, "local", by_name=True) == State.RUNNING


def test_a_slurm_that_answers_is_believed(run: RunFolder, tmp_path: Path) -> None:
    squeue = tmp_path / "empty" / "squeue"
    squeue.parent.mkdir()
    squeue.write_text("#!/bin/sh\necho 17\n")
    squeue.chmod(0o755)
    assert taken_up(run, "local", by_name=True) == State.PENDING


@pytest.mark.slow
def test_a_study_that_was_begun_on_slurm_is_finished_here(tmp_path: Path, corpus: Path) -> None:
    desk = Desk(tmp_path / "desk")
    desk.write("tiny.yaml", {"experiment": values(corpus)})
    command = ("submit.py", "--grid", "tiny.yaml", "--scheduler", "none", "--cluster", "debug")
    assert desk.run(*command).returncode == 0
    (run,) = desk.runs("tiny")
    for marker in (run.finished, run.stage(2).done):
        marker.unlink()
    write_json(run.stage(2).job, JOB)
    done = desk.run(*command, PATH=str(tmp_path))
    assert done.returncode == 0 and look(run).state == State.FINISHED, done.stdout + done.stderr
    assert "taken over from job 17" in done.stderr
