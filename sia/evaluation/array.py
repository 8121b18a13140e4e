"""Runs evaluated by a job array on Slurm."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from sia.atomic import read_json
from sia.cluster.array import carried_out
from sia.cluster.profile import Profile
from sia.errors import UserError
from sia.evaluation.job import EvaluateRun
from sia.run.folder import RunFolder


def evaluate_on_slurm(runs: Sequence[RunFolder], profile: Profile, options: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The result of each run's evaluation, in order, as `evaluate_run` returns it; `options` are those of it.

    Raises UserError with the error of the first one that failed, or that ended without a result.
    """
    tasks = [EvaluateRun(str(run.path), options) for run in runs]
    for task in tasks:
        if not task.is_queued:
            task.result.unlink(missing_ok=True)  # of an evaluation before
    told = 0
    for _ in carried_out(tasks, profile):
        while told < len(tasks) and tasks[told].is_done:
            yield _result(tasks[told])
            told += 1


def _result(task: EvaluateRun) -> dict[str, Any]:
    result = read_json(task.result) or {}
    if "error" in result:
        raise UserError(f"{Path(task.path).name}: {result['error']}")
    return result
