"""What status shows of runs that differ, failed or are damaged, as the command prints it."""

import json
import os
from pathlib import Path

import pytest
from desk import Desk
from written_runs import begin_run, epoch_row, experiment, finish_run

from sia.atomic import write_json
from sia.operate.status import view
from sia.run.folder import RunFolder
from sia.run.lock import HeartbeatLock
from sia.run.metrics import write_rows

MARKUP = "RuntimeError: [/__w/pytorch/pair.cc:561] [enforce fail at x.cc:672] lost :x: " + "far/" * 60 + "end"


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path / "desk")


def failed_run(desk: Desk, study: str = "size", seed: int = 0, **failure) -> RunFolder:
    run = begin_run(desk.folder / "runs", study, experiment(**{"training.seed": seed}))
    write_json(run.stage(1).failed, {"error": MARKUP, **failure})
    return run


def test_texts_are_printed_as_they_are_and_whole(desk: Desk) -> None:
    first, third = failed_run(desk, "[bold]x[", rank=0), failed_run(desk, "[bold]x[", seed=1, rank=3)
    shown = desk.call("status.py")
    assert shown.returncode == 0, shown.stderr
    assert f"\n{first.name}: {MARKUP}\n" in shown.stdout
    assert f"{third.name}: {MARKUP} (rank 3: python jobs/logs.py {third.name} --rank 3)\n" in shown.stdout
    assert "\n" + "[bold]x[: nobody drives it" in "\n" + shown.stdout and "[bold]x[: R@10 on" in shown.stdout


def test_runs_are_counted_and_told_apart(desk: Desk) -> None:
    for seed in range(3):
        finish_run(desk.folder / "runs", "size", experiment(**{"training.seed": seed}))
    failed_run(desk, seed=3)
    shown = desk.call("status.py", "size").stdout
    assert "\n4 runs: 3 finished, 1 failed\n" in shown
    assert [f"seed={seed}" in shown for seed in range(5)] == [True] * 4 + [False]
    (study,) = json.loads(desk.call("status.py", "--json").stdout)
    assert sorted(run["settings"]["training.seed"] for run in study["runs"]) == [0, 1, 2, 3]


@pytest.mark.parametrize("width", [60, 80, 100, 160])
def test_a_terminal_of_any_width_shows_what_counts(desk: Desk, width: int) -> None:
    run = finish_run(desk.folder / "runs", "size", experiment())
    finish_run(desk.folder / "runs", "size", experiment(**{"optimizer.learning_rate": 0.00123, "loss.margin": 0.3}))
    lines = desk.call("status.py", COLUMNS=str(width)).stdout.splitlines()
    assert max(map(len, lines)) <= width
    (row,) = [line for line in lines if run.name in line]
    assert row.split()[:2] == [run.name, "finished"] and " 5/5 " in row and " 47.5 " in row
    assert (" margin=0.2, " in row) == (width > 60), "nothing else tells these runs apart"


def test_damaged_rows_are_named_beside_what_is_on_record(desk: Desk) -> None:
    run = finish_run(desk.folder / "runs", "size", experiment())
    run.metrics.write_text(run.metrics.read_text().replace("0.4", "0.5", 1))
    shown = desk.call("status.py", "size").stdout
    assert "\n1 run: 1 finished\n" in shown and " 47.5 " in shown
    assert f"{run.name}: {run.metrics}: line 2 is not as it was written" in shown


def test_steps_and_a_heartbeat_that_cannot_be_read_are_left_out(desk: Desk) -> None:
    run = begin_run(desk.folder / "runs", "size", experiment())
    write_rows(run.metrics, [epoch_row(1, 1, 1, 0.4)])
    run.steps.symlink_to("steps.jsonl")  # a loop, which root cannot read either
    with HeartbeatLock(run.lock, job_id="23", cluster="local", stage=1):
        found = view(run)
    assert (found.state, found.share_of_epoch, found.error) == ("running", None, "")


def test_a_slurm_that_does_not_answer_is_told_once(desk: Desk) -> None:
    (desk.folder / "bin").mkdir()
    desk.write("bin/squeue", "#!/bin/sh\nexit 1\n").chmod(0o755)
    path = {"PATH": f"{desk.folder / 'bin'}:{os.environ['PATH']}"}
    run = begin_run(desk.folder / "runs", "size", experiment())
    assert desk.call("status.py", **path).stderr == ""
    write_json(run.stage(1).job, {"cluster": "slurm", "job_id": "17", "host": "login", "folder": "/runs"})
    shown = desk.call("status.py", "--json", **path)
    assert shown.stderr == "Slurm does not answer: what is pending or lost is not known\n"
    assert json.loads(shown.stdout)[0]["runs"][0]["state"] == "pending"
