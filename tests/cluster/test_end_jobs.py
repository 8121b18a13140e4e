"""Jobs told to end: all at once, none of a stranger, and a Slurm that is slow to answer; squeue and scancel pretend."""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sia.cluster import end_jobs as cancel
from sia.cluster.end_jobs import cancel_jobs
from sia.run.queue import QUEUE, Queue, is_in_queue
from sia.run.records import Job

Program = Callable[..., Path]


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Program:
    """Puts a program into PATH that does so; the file to which it writes how it was called."""
    queue = Queue()
    monkeypatch.setattr("sia.run.queue.QUEUE", queue)
    monkeypatch.setattr("sia.cluster.end_jobs.QUEUE", queue)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")

    def put(name: str, does: str) -> Path:
        calls = tmp_path / f"{name}.calls"
        (tmp_path / name).write_text(f'#!/bin/sh\necho "$*" >> {calls}\n{does}\n')
        (tmp_path / name).chmod(0o755)
        return calls

    return put


def job(number: int, **more: Any) -> Job:
    known = {"host": "login", "folder": "/runs", "user": os.getuid(), "name": f"size/run-{number}/1"}
    return Job(cluster="slurm", job_id=str(number), **{**known, **more})


def listed(*numbers: int, user: int | None = None, name: str = "size/run-{}/1") -> str:
    uid = os.getuid() if user is None else user
    return "\n".join(f"echo '{one}|RUNNING|None|{uid}|{name.format(one)}'" for one in numbers)


def test_all_are_told_in_one_call(program: Program) -> None:
    program("squeue", listed(17, 18, 19))
    calls = program("scancel", "true")
    assert cancel_jobs([job(17), job(18), job(20)]) == {}
    assert calls.read_text().splitlines() == ["17 18"], "one that has left is not told"


def test_many_are_told_in_batches(program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cancel, "MOST_AT_ONCE", 2)
    program("squeue", listed(1, 2, 3))
    calls = program("scancel", "if [ $1 = 1 ]; then echo 'scancel: error: Access denied' >&2; exit 1; fi")
    untold = cancel_jobs([job(1), job(2), job(3)])
    assert calls.read_text().splitlines() == ["1 2", "3"]
    assert untold == dict.fromkeys(["1", "2"], "scancel: error: Access denied")


def test_only_those_that_scancel_names_were_not_told(program: Program) -> None:
    program("squeue", listed(1, 21, 3))
    program("scancel", "echo 'scancel: error: Kill job error on job id 21: Access denied' >&2; exit 1")
    assert list(cancel_jobs([job(1), job(21), job(3)])) == ["21"]


def test_a_slow_answer_is_no_traceback(program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cancel, "SCANCEL_SECONDS", 0.3)
    program("squeue", listed(17, 18))
    program("scancel", "sleep 5")
    assert cancel_jobs([job(17), job(18)]) == dict.fromkeys(["17", "18"], "scancel: no answer within 0.3 s")


def test_a_slurm_that_does_not_answer_or_is_gone(program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    program("squeue", "exit 1")
    calls = program("scancel", "true")
    assert "does not answer" in cancel_jobs([job(17)])["17"]
    assert not calls.exists(), "nobody knows whose job it is now"
    monkeypatch.setenv("PATH", "/nowhere")
    assert "does not answer" in cancel_jobs([job(17)])["17"]


@pytest.mark.parametrize(
    ("theirs", "ours", "told"),
    [
        ({"user": 4711}, {}, False),  # where Slurm's numbers began anew
        ({"name": "another"}, {}, False),
        ({"name": "gpu-size/run-{}/1"}, {}, True),  # a cluster may add to a name
        ({}, {"name": "", "user": None}, True),  # a record that tells neither
    ],
)
def test_a_job_is_ours_by_its_user_and_name(program: Program, theirs: dict, ours: dict, told: bool) -> None:
    program("squeue", listed(17, **theirs))
    calls = program("scancel", "true")
    assert is_in_queue(job(17, **ours)) is told
    assert cancel_jobs([job(17, **ours)]) == {}
    assert calls.exists() is told


def test_what_squeue_said_before_does_not_count(program: Program) -> None:
    program("squeue", listed(17))
    assert is_in_queue(job(17))
    program("squeue", listed(17, name="another"))
    calls = program("scancel", "true")
    assert cancel_jobs([job(17)]) == {} and not calls.exists()


@pytest.mark.slurm
def test_a_real_slurm_ends_ours_and_leaves_a_stranger_with_our_number(tmp_path: Path) -> None:
    command = ["sbatch", "--parsable", "--partition=dev", "--output=/dev/null", "--hold", "--wrap", "true"]
    names = ("size/DG1A8-0123456789/1", "driver of size", "another")
    numbers = [subprocess.check_output([*command, f"--job-name={name}"], text=True).strip() for name in names]
    ours = [job(int(number), name=name) for number, name in zip(numbers, (*names[:2], "size/run/1"), strict=True)]
    QUEUE.forget()
    try:
        assert [is_in_queue(one) for one in ours] == [True, True, False]
        assert cancel_jobs(ours) == {}
        left = subprocess.check_output(["squeue", "-h", "--me", "-o", "%i"], text=True).split()
        assert numbers[2] in left and not {*numbers[:2]} & {*left}
    finally:
        subprocess.run(["scancel", *numbers], check=False)
