"""The real command on this machine, with Ray Tune, submitit and MLflow: its driver, or a worker, ends in all ways.

Jobs are stopped meanwhile, so that a fast machine does not reach a stage's end before a driver that is slow to leave.
"""

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest
from desk import (
    Desk,
    assert_every_epoch_once,
    in_mid_stage,
    job_of,
    mlflow_history,
    mlflow_status,
    test_rows,
    values,
    wait_until,
)

from sia.atomic import read_json
from sia.cluster.end_jobs import processes
from sia.run.folder import RunFolder
from sia.run.lock import holder_of
from sia.run.row_files import read_rows
from sia.run.state import State, look
from sia.trackers.mlflow.mirror import note_file

pytestmark = pytest.mark.slow
EPOCHS = 12  # 10, then 2 more from the best of them
SUBMIT = ("submit.py", "--grid", "tiny.yaml", "--cluster", "local", "--profile", "two.yaml", "--max-concurrent", "2")


def grid(corpus, layers: list[int]) -> dict:
    stages = [{"epochs": 10, "schedule": "calr"}, {"epochs": 2, "schedule": "calr", "lr_scale": 0.5}]
    return {"experiment": values(corpus, stages=stages), "grid": {"model.gru_layers": layers}}


def files_of(runs: list[RunFolder]) -> dict[str, int]:
    """Every file of the runs and when it was written; the mirror's own note, written each time, is left out."""
    files = [path for run in runs for path in run.path.rglob("*") if path.is_file() and path != note_file(run)]
    return {str(path): path.stat().st_mtime_ns for path in files}


@contextmanager
def held_in_mid_stage(desk: Desk, run: RunFolder) -> Iterator[str]:
    """The run's job, stopped in its first stage."""
    wait_until(lambda: in_mid_stage(run), 120, f"an epoch\n{desk.log}")
    rank = holder_of(run.lock).pid
    os.kill(rank, signal.SIGSTOP)
    try:
        yield job_of(run)
        assert holder_of(run.lock).pid == rank and not run.stage(1).done.exists()
    finally:
        os.kill(rank, signal.SIGCONT)


@dataclass
class Swept:
    """A study whose driver was killed in its first stage, and which was then submitted again."""

    desk: Desk
    runs: list[RunFolder]
    jobs_at_the_kill: dict[str, str]
    output: str


@pytest.fixture(scope="module")
def swept(corpus, tmp_path_factory) -> Swept:
    desk = Desk(tmp_path_factory.mktemp("swept"))
    desk.write("two.yaml", {"tasks_per_node": 2})
    desk.write("tiny.yaml", grid(corpus, [1, 2]))
    driver = desk.start(*SUBMIT)
    wait_until(lambda: any(in_mid_stage(run) for run in desk.runs("tiny")), 120, f"an epoch\n{desk.log}")
    os.kill(driver.pid, signal.SIGKILL)
    driver.wait()
    runs = desk.runs("tiny")
    held = [run for run in runs if run.lock.exists() and not run.stage(1).done.exists()]
    assert held and not any(run.finished.exists() for run in runs), "the driver was killed in mid-stage"
    jobs = {run.name: job_of(run) for run in runs if job_of(run)}
    again = desk.run(*SUBMIT, timeout=240)
    assert again.returncode == 0, again.stdout + again.stderr
    return Swept(desk, runs, jobs, again.stdout)


def test_every_run_ends_with_every_epoch_once_in_the_job_that_outlived_the_driver(swept):
    assert len(swept.runs) == 2 and swept.jobs_at_the_kill
    for run in swept.runs:
        assert look(run).state == State.FINISHED
        assert_every_epoch_once(run, EPOCHS)
        assert len(test_rows(run)) == 1
        told = [read_json(run.finished), *read_rows(run.provenance)]
        assert {(one["world_size"], one["batch_norm"]) for one in told} == {(2, "sync")}
        assert not run.lock.exists()
        assert job_of(run) == swept.jobs_at_the_kill.get(run.name, job_of(run)), "it was attached to"
        trained_by = {row["job_id"] for row in read_rows(run.provenance) if row["stage"] == 1}
        assert trained_by == {job_of(run)}, "one job trained the stage"
    assert all(pair in swept.output for pair in ("DG1A8", "DG2A8"))
    assert "report:" in swept.output and "python jobs/status.py tiny" in swept.output
    report = (swept.desk.folder / "reports" / "tiny" / "report.html").read_text()
    assert "gallery of D" in report and "adds what the best pair finds" not in swept.output


def test_mlflow_holds_each_run_and_epoch_once(swept):
    histories = mlflow_history(swept.desk.uri, "tiny")
    assert len(histories) == 2 * (1 + 2), "a run and its two stages, twice"
    for run in swept.runs:
        every = histories[run.name]
        assert every["train/loss"] == list(range(1, EPOCHS + 1))
        assert every["validation/R10 s2i"] == list(range(1, EPOCHS + 1))
        assert every["test R10 s2i"] == [0]
        assert histories[f"{run.name}/1"]["selection/R_at_10"] == list(range(1, 11))
        assert histories[f"{run.name}/2"]["selection/R_at_10"] == [11, 12]
    assert mlflow_status(swept.desk.uri, "tiny") == {"FINISHED"}


def test_submitting_it_again_redoes_nothing(swept):
    before, histories = files_of(swept.runs), mlflow_history(swept.desk.uri, "tiny")
    shown = swept.desk.call(*SUBMIT, "--dry-run")
    assert shown.stdout.count("finished") == 2 and "submit" not in shown.stdout
    assert swept.desk.call(*SUBMIT).returncode == 0
    assert files_of(swept.runs) == before
    assert mlflow_history(swept.desk.uri, "tiny") == histories


def test_a_grid_that_grew_adds_its_new_point_alone_however_its_drivers_end(swept, corpus):
    """By SIGTERM, as of a machine that is shut down; by a Ctrl-C; then a trial's worker dies, for want of memory."""
    desk, old = swept.desk, swept.runs
    before = files_of(old)
    desk.write("tiny.yaml", grid(corpus, [1, 2, 3]))
    shown = desk.call(*SUBMIT, "--dry-run").stdout
    assert shown.count("finished") == 2 and shown.count("submit") == 1

    driver = desk.start(*SUBMIT)
    wait_until(lambda: len(desk.runs("tiny")) == 3, 60, desk.log)
    (new,) = [run for run in desk.runs("tiny") if run.path not in {one.path for one in old}]
    with held_in_mid_stage(desk, new) as job:
        driver.terminate()
        assert_left(desk, driver, 143)
        driver = desk.start(*SUBMIT)
        wait_until(lambda: trials(desk), 120, f"a trial\n{desk.log}")
        os.killpg(driver.pid, signal.SIGINT)
        assert_left(desk, driver, 130)
        assert look(new).state in (State.RUNNING, State.PENDING), "the job outlives them"
        driver = desk.start(*SUBMIT)
        (worker,) = wait_until(lambda: trials(desk), 120, f"a trial\n{desk.log}")
        os.kill(worker, signal.SIGKILL)
        wait_until(lambda: set(trials(desk)) - {worker}, 120, f"another trial\n{desk.log}")
    assert driver.wait(240) == 0, desk.log
    assert job_of(new) == job, "all of them attached to it"
    assert_every_epoch_once(new, EPOCHS)
    assert files_of(old) == before, "the finished runs are as they were"
    histories = mlflow_history(desk.uri, "tiny")
    assert histories[new.name]["train/loss"] == list(range(1, EPOCHS + 1)) and len(histories) == 9


def assert_left(desk: Desk, driver: "subprocess.Popen[str]", status: int) -> None:
    assert driver.wait(90) == status, desk.log
    assert "go on; `python jobs/submit.py --again tiny` attaches" in desk.log
    assert "SIGTERM" not in desk.log and "Traceback" not in desk.log and "    @ " not in desk.log


def trials(desk: Desk) -> list[int]:
    """The processes of this desk's trials."""
    mark = f"MLFLOW_TRACKING_URI={desk.uri}"
    return [pid for pid, words in processes(mark) if words[0].startswith("ray::Impl")]
