"""Evaluation as a job: the same result as here, and the same errors."""

import json
import subprocess
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import stages
from desk import Desk

from sia.atomic import read_json
from sia.cluster.profile import Profile
from sia.cluster.submit import submit_all
from sia.config import Stage
from sia.errors import UserError
from sia.evaluation.job import EvaluateRun, evaluate_on_slurm
from sia.run.folder import RunFolder

OPTIONS = {"checkpoint": "best", "split": "test", "sample": None, "pool": None, "folds": 1}
OPTIONS |= {"intervals": False, "corpus": None}
WAYS = ("speech_to_image", "image_to_speech")


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory, corpus: Path) -> Desk:
    """Two runs that were trained."""
    desk = Desk(tmp_path_factory.mktemp("desk"))
    for seed in (0, 1):
        settings = stages.experiment(corpus, Stage(epochs=1), **{"training.seed": seed})
        stages.trained(desk.folder / "runs" / "two", settings)
    return desk


@pytest.fixture
def run(desk: Desk) -> RunFolder:
    return desk.runs("two")[0]


def test_the_task_writes_what_evaluation_returns_or_its_error(
    desk: Desk, run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = EvaluateRun(str(run.path), OPTIONS)
    task()
    found = read_json(task.result) or {}
    here = json.loads(desk.call("evaluate.py", run.path, "--json").stdout)
    assert found["measures"] == here["measures"] and found["num_captions"] == here["num_captions"]
    failing = EvaluateRun(str(run.path), {**OPTIONS, "checkpoint": "epoch=77"})
    failing()
    monkeypatch.setattr("sia.evaluation.job.carried_out", lambda tasks, profile: (task for task in tasks if not task()))
    with pytest.raises(UserError, match=f"{run.name}: .*no checkpoint epoch=77"):
        list(evaluate_on_slurm([run], Profile(), failing.options))
    assert "no checkpoint epoch=77" in (read_json(failing.result) or {})["error"]
    assert failing.result != task.result and failing.job_record != task.job_record, "of other options"


def test_several_runs_are_one_table_with_intervals_the_best_first(desk: Desk) -> None:
    names = [run.name for run in desk.runs("two")]
    one = desk.call("evaluate.py", *names, "--json")
    measured = [json.loads(line) for line in one.stdout.splitlines()]
    means = [sum(result["measures"][f"{way}/R_at_10"] for way in WAYS) for result in measured]
    assert len(means) == 2 and means == sorted(means, reverse=True)
    assert all("speech_to_image/R_at_10_low" in result["measures"] for result in measured)
    told = desk.call("evaluate.py", *names).stdout
    assert told.count("R@10 (%)") == 2 and "best checkpoints of 2 runs" in told
    assert told.index(measured[0]["run"]) < told.index(measured[1]["run"])
    refused = desk.call("evaluate.py", *names, "--checkpoint", "epoch=9")
    assert refused.returncode == 1 and not refused.stdout and refused.stderr.count("\n") == 1


@pytest.mark.slow
@pytest.mark.slurm
def test_runs_are_evaluated_by_a_job_array(desk: Desk) -> None:
    desk.write("small.yaml", {"partition": "dev", "timeout_min": 10})
    names, on_slurm = [run.path for run in desk.runs("two")], ("--cluster", "slurm", "--profile", "small.yaml")
    here = desk.call("evaluate.py", *names, "--json", "--intervals")
    there = desk.call("evaluate.py", *names, "--json", "--intervals", *on_slurm)
    assert there.returncode == 0, there.stderr
    assert [json.loads(line)["measures"] for line in there.stdout.splitlines()] == [
        json.loads(line)["measures"] for line in here.stdout.splitlines()
    ]
    records = [path for run in desk.runs("two") for path in run.path.glob("evaluations/*-job.json")]
    jobs = {(read_json(path) or {})["job_id"] for path in records}
    assert len(jobs) == 2 and len({job.split("_")[0] for job in jobs}) == 1, "one array"


@pytest.mark.slow
@pytest.mark.slurm
def test_a_command_that_is_given_again_waits_for_the_array_of_the_one_before(desk: Desk, monkeypatch) -> None:
    options = {**OPTIONS, "split": "validation"}
    tasks = [EvaluateRun(str(run.path), options) for run in desk.runs("two")]
    submit_all(tasks, "slurm", Profile(partition="dev", timeout_min=10, sbatch={"hold": True}))
    array = job_id(tasks[0]).split("_")[0]

    def refuse(*_: object) -> None:
        raise AssertionError("the same evaluation was submitted twice")

    monkeypatch.setattr("sia.cluster.array.submit_all", refuse)
    # Released once it has been waited for.
    waits = SimpleNamespace(sleep=lambda seconds: release(array))
    monkeypatch.setattr("sia.cluster.array.time", waits)
    found = list(evaluate_on_slurm(desk.runs("two"), Profile(partition="dev"), options))
    assert [len(one["measures"]) > 0 for one in found] == [True, True]


def release(array: str) -> None:
    subprocess.run(["scontrol", "release", array], capture_output=True)
    time.sleep(1.0)


def job_id(task: EvaluateRun) -> str:
    return str((read_json(task.job_record) or {})["job_id"])
