"""Which runs a sweep goes on with: what ended them before is forgotten, and what is damaged is mended or left alone."""

import sys
from collections.abc import Iterable

from sia.cluster.profile import Cluster
from sia.operate.cancel import BY
from sia.operate.damage import FAULTS, damage
from sia.run import queue
from sia.run.driver import asked_at, driver_of
from sia.run.folder import RunFolder, again, runs_root
from sia.run.mended import mend
from sia.run.records import Job, Stopped
from sia.run.state import State, look
from sia.sweep.chain import forget_failure, forget_loss

SILENT = "a Slurm that does not answer"


def take_up(study: str, runs: list[RunFolder], cluster: Cluster, by_name: bool, asha: bool) -> dict[str, str]:
    """The damage of each run that cannot be gone on with, by its name; the others are made ready.

    Of what ended them, what came after this drive was asked for stays. by_name: as `take_over` has it. asha: whether
    what it gave up is left so.
    """
    asked, damaged = asked_at(study), {}
    for run in runs:
        try:
            for line in mend(run):
                print(f"{run.name}: {line}", file=sys.stderr, flush=True)
            stopped = Stopped.read(run.stopped)
            taken_up = stopped is not None and (not asha or stopped.by == BY)
            if taken_up and run.stopped.stat().st_mtime < asked:
                run.stopped.unlink(missing_ok=True)
            look(run)
        except FAULTS as error:
            damaged[run.name] = damage(run, error)
    whole = [run for run in runs if run.name not in damaged]
    take_over(study, whole, cluster, by_name)
    for run in whole:
        forget_failure(run, asked)
        forget_loss(run)
    return damaged


def take_over(study: str, runs: Iterable[RunFolder], cluster: Cluster, by_name: bool) -> None:
    """Before the runs are gone on with on another cluster than a Slurm that does not answer: the records of its jobs,
    and of a driver's, are forgotten, a line each. A job that begins all the same leaves because of the run's lock.

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
            cure = f"{again(study, run.name)} --cluster {cluster}"
            done = f"taken over from {which}" if by_name else f"waits for {which}; {cure} takes it over"
            print(f"{run.study}/{run.name}: {done}", file=sys.stderr)
            if by_name:
                run.stage(status.stage).job.unlink(missing_ok=True)


def _is_silent(job: Job, cluster: Cluster) -> bool:
    return job.cluster == "slurm" != cluster and queue.is_in_queue(job) and queue.QUEUE.jobs is None
