"""Who drives a study: a process that holds its lock, a detached driver's job, or nobody. It loads no torch."""

from dataclasses import dataclass
from typing import Any

from sia.cluster.driver_job import driver_of
from sia.cluster.state import is_in_queue
from sia.lock import holder_of, is_alive
from sia.run_folder import runs_root


@dataclass(frozen=True)
class Driver:
    """The lock's living holder, and the job record of a detached driver that is in the queue; None where there is none.

    A detached driver that has begun is both.
    """

    study: str
    process: dict[str, Any] | None = None
    job: dict[str, Any] | None = None

    @property
    def lives(self) -> bool:
        return self.process is not None or self.job is not None

    @property
    def who(self) -> str:
        """For example `job 17 (running, process 4711 of node3)`; empty where nobody drives."""
        process = f"process {self.process['pid']} of {self.process['host']}" if self.process else ""
        if self.job is None:
            return process
        return f"job {self.job['job_id']} ({f'running, {process}' if process else 'pending'})"


def driver_status(study: str) -> Driver:
    """Who drives the study now."""
    lock, job = runs_root() / study / "driver.lock", driver_of(study)
    holder = holder_of(lock)
    alive = holder if holder is not None and is_alive(lock, holder) else None
    return Driver(study, alive, job if job is not None and is_in_queue(job) else None)
