"""Many tasks of one kind as a job array on Slurm."""

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from sia.cluster.profile import Profile
from sia.cluster.submit import submit_all
from sia.cluster.task import Task
from sia.errors import UserError
from sia.run.queue import is_in_queue
from sia.run.records import Job

POLL_SECONDS = 1.0
One = TypeVar("One", bound=Task)


def is_queued(task: Task) -> bool:
    job = Job.read(task.job_record)
    return job is not None and is_in_queue(job)


def carried_out(tasks: Sequence[One], profile: Profile, is_done: Callable[[One], bool]) -> Iterator[One]:
    """Each task as it is done. Those that a command left in the queue which was ended are waited for, not repeated.

    Raises UserError for the first one whose job ended without it.
    """
    if fresh := [task for task in tasks if not (is_queued(task) or is_done(task))]:
        submit_all(fresh, "slurm", profile)
    try:
        yield from _as_they_are_done(list(tasks), is_done)
    except KeyboardInterrupt:
        job = _job(tasks[0]).job_id.partition("_")[0]
        print(f"job {job} goes on: give the same command again to wait for it, or scancel {job}", file=sys.stderr)
        raise


def _as_they_are_done(waiting: list[One], is_done: Callable[[One], bool]) -> Iterator[One]:
    while waiting:
        # The queue is asked before the files are looked for: a task that left in between has written its own.
        left = [task for task in waiting if not is_queued(task)]
        done = [task for task in waiting if is_done(task)]
        yield from done
        waiting = [task for task in waiting if task not in done]
        for lost in (task for task in left if task in waiting):
            job = _job(lost)
            logs = f"{job.folder}/{job.job_id}_0_log.err"
            raise UserError(f"{lost.name}: its job ended without a result; see {logs}, then run it again")
        time.sleep(POLL_SECONDS if waiting else 0)


def _job(task: Task) -> Job:
    """Raises UserError where a task that was submitted has lost its record."""
    job = Job.read(task.job_record)
    if job is None:
        raise UserError(f"{task.job_record}: gone, so that nobody knows of the job; give the same command again")
    return job
