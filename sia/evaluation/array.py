"""Evaluate runs as a job array on Slurm."""

import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from sia.atomic import read_json
from sia.cluster.profile import Profile
from sia.cluster.submit import submit_all
from sia.errors import UserError
from sia.evaluation.job import EvaluateRun, evaluation_profile
from sia.run.folder import RunFolder
from sia.run.queue import is_in_queue

POLL_SECONDS = 1.0


def evaluate_on_slurm(runs: Sequence[RunFolder], profile: Profile, options: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The result of each run's evaluation, in order, as `evaluate_run` returns it; `options` are those of it.

    Raises UserError with the error of the first one that failed, or that ended without a result.
    """
    tasks = [EvaluateRun(str(run.path), options) for run in runs]
    # A command that was ended left its tasks in the queue: they are waited for, not submitted twice.
    fresh = [task for task in tasks if not _is_queued(task)]
    for task in fresh:
        task.result.unlink(missing_ok=True)
    if fresh:
        submit_all(fresh, "slurm", evaluation_profile(profile))
    try:
        for task in tasks:
            yield _result(task)
    except KeyboardInterrupt:
        job = str((read_json(tasks[0].job_record) or {})["job_id"]).partition("_")[0]
        print(f"job {job} goes on: give the same command again to wait for it, or scancel {job}", file=sys.stderr)
        raise


def _is_queued(task: EvaluateRun) -> bool:
    job = read_json(task.job_record)
    return job is not None and is_in_queue(job)


def _result(task: EvaluateRun) -> dict[str, Any]:
    while True:
        job = read_json(task.job_record) or {}
        gone = not is_in_queue(job)
        # The queue is asked before the file is looked for: a task that left in between has written it.
        result = read_json(task.result)
        if result is not None:
            if "error" in result:
                raise UserError(f"{Path(task.path).name}: {result['error']}")
            return result
        if gone:
            raise UserError(f"{task.name}: job {job['job_id']} ended without a result; see its logs in {job['folder']}")
        time.sleep(POLL_SECONDS)
