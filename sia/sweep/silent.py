"""What a Slurm that does not answer had: waited for, or taken over by who names another cluster. It loads no torch."""

import sys
from collections.abc import Iterable

from sia.cluster.profile import Cluster
from sia.run import queue
from sia.run.driver import driver_of
from sia.run.folder import RunFolder, runs_root
from sia.run.records import Job
from sia.run.state import State, look

SILENT = "a Slurm that does not answer"


def take_over(study: str, runs: Iterable[RunFolder], cluster: Cluster, by_name: bool) -> None:
    """Before the runs are gone on with on another cluster: the records of jobs, and of a driver's, that nobody can ask
    about are forgotten, a line each. A job that begins all the same leaves because of the run's lock.

    by_name: whether the cluster was asked for by its name; where it was not, a line tells what is waited for.
    """
    driver = driver_of(study)
    if by_name and driver is not None and _is_silent(driver, cluster):
        print(f"{study}: its driver, job {driver.job_id} of {SILENT}, is forgotten", file=sys.stderr)
        (runs_root() / study / "driver.json").unlink(missing_ok=True)
    for run in runs:
        status = look(run)
        if status.state == State.PENDING and status.job and _is_silent(status.job, cluster):
            which = f"job {status.job_id} of {SILENT}"
            done = f"taken over from {which}" if by_name else f"waits for {which}; --cluster {cluster} takes it over"
            print(f"{run.study}/{run.name}: {done}", file=sys.stderr)
            if by_name:
                run.stage(status.stage).job.unlink(missing_ok=True)


def _is_silent(job: Job, cluster: Cluster) -> bool:
    return job.cluster == "slurm" != cluster and queue.is_in_queue(job) and queue.QUEUE.jobs is None
