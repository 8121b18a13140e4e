"""What status knows of studies: a thousand runs fast, who drives, how alive a job is, and why a lost one ended."""

import json
import os
import resource
import socket
import subprocess
import time
from pathlib import Path

import pytest
from desk import Desk, wait_until
from written_runs import begin_run, end_stage, epoch_row, experiment, finish_run, write_finished

from sia.atomic import write_json
from sia.cluster import slurm_says
from sia.config import Stage, dump_experiment
from sia.operate.status import StudyView, run_views, study_views, view
from sia.operate.status_table import views_table, way_line
from sia.operate.watch import News
from sia.run import latest as measured_module
from sia.run.driver import driver_status
from sia.run.folder import RunFolder, again
from sia.run.latest import measured
from sia.run.lock import HeartbeatLock
from sia.run.records import StagePlan, Study
from sia.run.row_files import append_row, write_rows
from sia.run.selection import selection_value
from sia.run.steps import StepRow, StepWriter

LOST_ON_SLURM = {"cluster": "slurm", "job_id": "17", "host": "login", "folder": "/runs"}

STEP = StepRow(
    **{"stage": 1, "epoch": 2, "step": 50, "batch": 10, "batches": 40, "time": 1e9, "loss": 2.3456},
    **{"learning_rate": 1e-3, "pairs_per_second": 414.9, "seconds_waiting": 0.1, "peak_memory_gb": 1.5},
    gradient_norm=0.5,
)


def long_run(folder: Path, number: int, text: str, rows: list, finished: bool, started: bool) -> RunFolder:
    """A run of 100 epochs, as its jobs would have left it."""
    run = RunFolder(folder / f"DG2A64-{number}")
    run.stage(1).path.mkdir(parents=True)
    run.config.write_text(text)
    StagePlan(stage=Stage(epochs=100), first_epoch=0, start_lr=1e-4).write(run.stage(1).plan)
    if started:
        write_json(run.stage(1).job, {**LOST_ON_SLURM, "job_id": str(1000 + number), "time": 1.7e9})
        write_rows(run.metrics, rows)
    if finished:
        end_stage(run, 1, 50)
        append_row(run.metrics, write_finished(run, {}).row)
    return run


@pytest.mark.slow
def test_a_thousand_runs_cost_no_more_than_a_hundred_starts_of_the_command(tmp_path: Path, program) -> None:
    """Of a hundred epochs each. Half of them finished, half under way or lost; one question to squeue, one to sacct."""
    asked = program("squeue", "seq 1500 1899")
    explained = program("sacct", "echo '1950|TIMEOUT|0:0'")
    desk = Desk(tmp_path / "desk")
    text = dump_experiment(experiment(stages=[Stage(epochs=100).model_dump()]))
    rows = [epoch_row(epoch, 1, epoch, 0.5) for epoch in range(1, 101)]
    for number in range(1000):
        long_run(desk.folder / "runs" / "wide", number, text, rows, number < 500, number < 990)
    _, start = best_of(3, lambda: desk.run("status.py", "--help"))
    shown, seconds = best_of(3, lambda: desk.run("status.py", "wide", "--json"))
    states = [run["state"] for run in json.loads(shown.stdout)[0]["runs"]]
    assert [states.count(one) for one in ("finished", "pending", "lost", "waiting")] == [500, 400, 90, 10]
    assert len(asked.read_text().splitlines()) == len(explained.read_text().splitlines()) == 3
    print(f"1,000 runs in {seconds:.2f} s of processor time; a start takes {start:.3f}")
    assert seconds < 100 * start


def best_of(times: int, work) -> tuple[subprocess.CompletedProcess, float]:
    """The least seconds of processor time that it took: other processes may share the cores."""
    taken = []
    for _ in range(times):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = work()
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        taken.append(after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime)
        assert done.returncode == 0, done.stderr
    return done, min(taken)


def test_the_tail_of_a_long_finished_run_tells_what_the_whole_does(tmp_path: Path, monkeypatch) -> None:
    rows = [epoch_row(epoch, 1, epoch, 0.5 - abs(epoch - 40) / 200) for epoch in range(1, 81)]
    run = begin_run(tmp_path, "size", experiment())
    write_rows(run.metrics, [*rows, {"stage": 1, "epoch": 40, "time": 1.0, "test/speech_to_image/R_at_10": 0.4}])
    whole = measured(run)
    assert whole.last == rows[-1] and whole.best == max(map(selection_value, rows))
    finished = write_finished(run, {})
    finished.model_copy(update={"best_value": whole.best}).write(run.finished)
    monkeypatch.setattr(measured_module, "sound_rows", lambda run: pytest.fail("read as a whole"))
    assert measured(run) == whole


def test_a_new_row_is_seen(tmp_path: Path) -> None:
    run = begin_run(tmp_path, "size", experiment())
    assert view(run).epoch == 0 and view(run).best is None
    for epoch in (1, 2):
        write_rows(run.metrics, [epoch_row(n, 1, n, 0.4) for n in range(1, epoch + 1)])
        assert view(run).epoch == epoch


def test_a_running_run_tells_its_heartbeat_its_host_and_how_far_the_epoch_is(root: Path, capsys) -> None:
    run = begin_run(root, "size", experiment())
    write_rows(run.metrics, [epoch_row(1, 1, 1, 0.4)])
    StepWriter(run.steps, 0).add(STEP)
    with HeartbeatLock(run.lock, job_id="23", cluster="local", stage=1):
        os.utime(run.lock, (time.time() - 12, time.time() - 12))
        found = view(run)
    assert (found.state, found.host, found.job_id, found.share_of_epoch) == (
        "running",
        socket.gethostname(),
        "23",
        0.25,
    )
    assert 11 < found.heartbeat_seconds < 14
    assert found.step == STEP.model_dump()
    assert (found.epoch_seconds, found.seconds_left) == (50.0, 3.75 * 50.0)
    cells = {column.header: next(column.cells) for column in views_table("size", [found]).columns}
    assert (cells["epoch"], cells["loss"], cells["pairs/s"], cells["left"]) == ("1/5 +25%", "2.346", "415", "3.1 min")
    study = StudyView("size", None, [found])
    assert (study.seconds_left, way_line(study)) == (187.5, "1 of 5 epochs, 415 pairs/s, about 3.1 min left")
    for news in (News(every_seconds=0), News()):
        news.say([study])
    first, way, later = capsys.readouterr().out.splitlines()
    assert way == f"size: {way_line(study)}; {run.name} stage 1, epoch 1/5 +25%"
    assert first == later and first.startswith(f"{run.name}: running, stage 1, epoch 1"), "not before ten seconds"
    with HeartbeatLock(run.lock, job_id="23", cluster="local", stage=1):
        StepWriter(run.steps, 50).add(STEP.model_copy(update={"epoch": 3, "step": 90}))
        found = view(run)
    cells = {column.header: next(column.cells) for column in views_table("size", [found]).columns}
    assert (found.epoch, cells["epoch"], found.seconds_left) == (1, "2/5 +25%", 2.75 * 50.0), (
        "the second is being saved"
    )
    write_rows(run.metrics, [epoch_row(1, 1, 1, 0.4), epoch_row(2, 1, 2, 0.4)])
    assert view(run).heartbeat_seconds is None


def test_nobody_a_process_or_a_job_drives(root: Path, program) -> None:
    finish_run(root, "size", experiment())
    assert study_views(["size"])[0].driver_line == "size: nobody drives it"
    other = begin_run(root, "size", experiment(**{"training.seed": 1}))
    assert study_views(["size"])[0].driver_line == f"size: nobody drives it; to go on: {again('size', other.name)}"
    write_json(other.stopped, {"by": "asha"})
    assert study_views(["size"])[0].driver_line == "size: nobody drives it"
    write_json(other.stopped, {"by": "cancel"})
    assert study_views(["size"])[0].driver_line == f"size: nobody drives it; to go on: {again('size', other.name)}"
    program("squeue", "echo 17")
    write_json(root / "size" / "driver.json", LOST_ON_SLURM)
    assert study_views(["size"])[0].driver_line == "size: driven by job 17 (pending)"
    with HeartbeatLock(root / "size" / "driver.lock"):
        process = f"process {os.getpid()} of {socket.gethostname()}"
        assert study_views(["size"])[0].driver_line == f"size: driven by job 17 (running, {process})"
        (root / "size" / "driver.json").unlink()
        assert driver_status("size").who == process
    assert not driver_status("size").lives


def test_a_study_whose_driver_has_made_no_run_yet_is_shown(root: Path, program) -> None:
    program("squeue", "echo 17")
    write_json(root / "new" / "driver.json", LOST_ON_SLURM)
    assert [(one.study, one.runs) for one in study_views(["new", "none"])] == [("new", [])]
    program("squeue")
    (found,) = study_views(["new"])
    assert found.driver_line == (
        "new: its detached driver ended before it made a run; python jobs/logs.py new tells why"
    )


def lost_runs(root: Path, jobs: list[str]) -> list[RunFolder]:
    runs = [begin_run(root, "size", experiment(**{"training.seed": seed})) for seed in range(len(jobs))]
    for run, job in zip(runs, jobs, strict=True):
        write_json(run.stage(1).job, {**LOST_ON_SLURM, "job_id": job})
    return runs


def test_sacct_is_asked_once_why_lost_jobs_ended(root: Path, program) -> None:
    program("squeue")
    answer = "1|TIMEOUT|0:0\\n2|CANCELLED by 0|0:0\\n3|OUT_OF_MEMORY|0:125\\n4|FAILED|3:0\\n5|RUNNING|0:0\\n"
    asked = program("sacct", f"printf '{answer}'")
    runs = lost_runs(root, ["1", "2", "3", "4", "5"])
    errors = [run.error for run in run_views(runs)]
    assert errors[:4] == [
        "job 1 ended: TIMEOUT (raise timeout_min of its profile)",
        "job 2 ended: CANCELLED by root",
        "job 3 ended: OUT_OF_MEMORY (raise mem_gb of its profile)",
        "job 4 ended: FAILED, exit code 3:0",
    ]
    assert errors[4].startswith("job 5 left without a word; python jobs/logs.py DG2A64-")
    run_views(runs)
    assert len(asked.read_text().splitlines()) == 1


@pytest.mark.parametrize("answer", ["exit 1", "exec sleep 5"])
def test_accounting_that_does_not_answer_is_asked_again_after_a_while(root: Path, program, monkeypatch, answer) -> None:
    monkeypatch.setattr(slurm_says, "ANSWER_SECONDS", 0.3)
    program("squeue")
    asked = program("sacct", answer)
    runs = lost_runs(root, ["1", "2"])
    assert all("without a word" in run.error for run in run_views(runs))
    assert len(run_views(lost_runs(root, ["3", "4", "5"]))) == 3
    assert len(asked.read_text().splitlines()) == 1, "not for every look"
    program("sacct", "echo '3|TIMEOUT|0:0'")
    start = time.monotonic()
    monkeypatch.setattr(slurm_says.time, "monotonic", lambda: start + slurm_says.SILENT_SECONDS + 1)
    assert "TIMEOUT" in run_views(runs)[0].error


def test_the_command_prints_a_line_a_table_and_json(tmp_path: Path) -> None:
    desk = Desk(tmp_path / "desk")
    finish_run(desk.folder / "runs", "size", experiment())
    Study(question="How small may it be?").write(desk.folder / "runs" / "size" / "study.json")
    shown = desk.call("status.py").stdout
    assert shown.startswith("How small may it be?\nsize: nobody drives it") and "finished" in shown
    (study,) = json.loads(desk.call("status.py", "--json").stdout)
    (run,) = study["runs"]
    assert (run["epoch"], run["epochs"], run["best"], run["state"]) == (5, 5, 0.475, "finished")
    assert study["driver"] == {"lives": False, "pid": None, "host": None, "job_id": None}


def test_watch_prints_news_until_ctrl_c(tmp_path: Path) -> None:
    desk = Desk(tmp_path / "desk")
    run = begin_run(desk.folder / "runs", "size", experiment())
    Study(question="How small may it be?").write(run.path.parent / "study.json")
    watching = desk.start("status.py", "size", "--watch", "0.1")
    try:
        wait_until(lambda: f"{run.name}: waiting, stage 1\n" in desk.log, 20, "the first line")
        write_rows(run.metrics, [epoch_row(1, 1, 1, 0.4)])
        wait_until(lambda: "epoch 1, validation R@10" in desk.log, 20, f"the epoch\n{desk.log}")
        watching.send_signal(2)
        assert watching.wait(10) == 0
    finally:
        watching.kill()
        watching.wait()
    assert desk.log.count("\n") == 4, "what did not change is not said again"
    assert desk.log.startswith("How small may it be?\n")


@pytest.mark.parametrize("flags", [("--json", "--watch"), ("--watch", "0"), ("--watch", "-1")])
def test_wrong_flags(tmp_path: Path, flags: tuple[str, ...]) -> None:
    done = Desk(tmp_path / "desk").call("status.py", *flags)
    assert done.returncode == 2 and "Traceback" not in done.stderr


MARKUP = "RuntimeError: [/__w/pytorch/pair.cc:561] [enforce fail at x.cc:672] lost :x: " + "far/" * 60 + "end"


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


def test_a_slurm_that_does_not_answer_is_told_once(desk: Desk, program) -> None:
    program("squeue", "exit 1")
    desk.environment["PATH"] = os.environ["PATH"]
    run = begin_run(desk.folder / "runs", "size", experiment())
    assert desk.call("status.py").stderr == ""
    write_json(run.stage(1).job, {"cluster": "slurm", "job_id": "17", "host": "login", "folder": "/runs"})
    shown = desk.call("status.py", "--json")
    assert shown.stderr == "Slurm does not answer: what is pending or lost is not known\n"
    assert json.loads(shown.stdout)[0]["runs"][0]["state"] == "pending"
