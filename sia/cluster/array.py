"""Many tasks of one kind as a job array on Slurm."""

import sys
import time
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from typing import ClassVar, TypeVar

from sia.cluster.profile import Profile
from sia.cluster.submit import submit_all
from sia.cluster.task import Task
from sia.errors import UserError
from sia.run.queue import is_in_queue
from sia.run.records import Job

POLL_SECONDS = 1.0


class Element(Task):
    """A task of an array: one process is enough for it."""

    most_gpus: ClassVar[int] = 0

    @property
    @abstractmethod
    def is_done(self) -> bool:
        """Whether what it makes is there."""

    @property
    def is_queued(self) -> bool:
        job = Job.read(self.job_record)
        return job is not None and is_in_queue(job)


One = TypeVar("One", bound=Element)


def carried_out(tasks: Sequence[One], profile: Profile) -> Iterator[One]:
    """Each task as it is done. Those that a command left in the queue which was ended are waited for, not repeated.

    Of the profile's ranks each gets one. Raises UserError for the first one whose job ended without a result.
    """
    if fresh := [task for task in tasks if not (task.is_queued or task.is_done)]:
        gpus = min(fresh[0].most_gpus, profile.gpus_per_node)
        one_process = {"nodes": 1, "tasks_per_node": 1, "gpus_per_node": gpus}
        submit_all(fresh, "slurm", profile.of_run().model_copy(update=one_process))
    try:
        yield from _as_they_are_done(list(tasks))
    except KeyboardInterrupt:
        job = _job(tasks[0]).job_id.partition("_")[0]
        print(f"job {job} goes on: give the same command again to wait for it, or scancel {job}", file=sys.stderr)
        raise


def _as_they_are_done(waiting: list[One]) -> Iterator[One]:
    while waiting:
        # The queue is asked before the files are looked for: a task that left in between has written its own.
        left = [task for task in waiting if not task.is_queued]
        done = [task for task in waiting if task.is_done]
        yield from done
        waiting = [task for task in waiting if task not in done]
        if lost := next((task for task in left if task in waiting), None):
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
