"""The job of a detached driver: `jobs/submit.py` as a small Slurm job, so that no login shell has to live."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sia.cluster.environment import clean_environment
from sia.cluster.profile import Profile
from sia.cluster.refusal import cluster_is_away
from sia.run.driver import OWN_JOB

LEAST_TIMEOUT_MIN = 30
MOST_RESTARTS = 100
ASK_AGAIN_SECONDS = 15.0
ENDED_BY_TERM = 128 + signal.SIGTERM
# Flags of a profile's `sbatch:` that say how large its jobs are, or what only they need; the others may be mandatory.
OF_LARGE_JOBS = (
    *("gres", "gpu", "tres", "mem", "exclusive", "ntasks", "cpus", "cores", "sockets", "threads", "core-spec"),
    *("thread-spec", "extra-node-info", "hint", "distribution", "contiguous", "switches", "spread-job", "nodefile"),
    *("use-min-nodes", "overcommit", "bb", "licenses", "tmp", "requeue", "dependency", "network"),
)
MEM_GB = 4.0  # Ray takes about 650 MB, and 116 MB for each trial that runs at once


@dataclass(frozen=True)
class DriveStudy:
    """The task: drive the study in `folder` with these arguments of jobs/submit.py."""

    folder: str
    arguments: list[str]

    @property
    def name(self) -> str:
        return f"driver of {Path(self.folder).name}"

    @property
    def jobs(self) -> Path:
        return Path(self.folder) / "driver"

    @property
    def job_record(self) -> Path:
        return Path(self.folder) / "driver.json"

    @property
    def stopped(self) -> None:
        return None

    def __call__(self) -> None:
        """Called by submitit in the job. Raises RuntimeError where the study did not end well."""
        from submitit import JobEnvironment

        job = JobEnvironment()
        told = _Told()
        status = self._drive(job.job_id)
        if status and (told or status < 0 or status == ENDED_BY_TERM) and _goes_on(job.job_id):
            # Preempted, or killed for its memory: a job that a person cancelled is no longer running here.
            job._requeue(0)
        elif status:
            raise RuntimeError(f"the driver ended with status {status}; its output is in this folder")

    def _drive(self, job_id: str) -> int:
        """The exit status of the driver; negative where a signal ended it."""
        code = Path(__file__).resolve().parents[2]
        own = {"PYTHONPATH": str(code), OWN_JOB: job_id}
        environment = {**clean_environment(dict(os.environ), Profile()), **own}
        command = [sys.executable, "-u", str(code / "jobs" / "submit.py"), *self.arguments]
        driver = subprocess.Popen(command, env=environment, start_new_session=True)
        try:
            return driver.wait()
        except BaseException:
            driver.send_signal(signal.SIGINT)
            driver.wait(timeout=20)
            raise


class _Told:
    """Whether SIGTERM came: a partition that preempts sends it, and leaves a while to end."""

    def __init__(self) -> None:
        self.came = False
        signal.signal(signal.SIGTERM, self._come)

    def _come(self, number: int, frame: Any) -> None:
        self.came = True

    def __bool__(self) -> bool:
        return self.came


def _goes_on(job_id: str) -> bool:
    """Whether Slurm still counts the job as running, and has not restarted it too often."""
    if int(os.environ.get("SLURM_RESTART_COUNT", "0")) >= MOST_RESTARTS:
        return False
    while (state := _state(job_id)) is None:
        time.sleep(ASK_AGAIN_SECONDS)  # without the controller it cannot be requeued either
    return state == "RUNNING"


def _state(job_id: str) -> str | None:
    """The job's state, empty where Slurm knows it no more; None where Slurm does not answer."""
    command = ["squeue", "--noheader", "--jobs", job_id, "--format", "%T"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=30)
    except subprocess.TimeoutExpired:
        return None
    return None if cluster_is_away(answer.stderr) else answer.stdout.strip()


def driver_profile(jobs: Profile, dependency: str | None) -> Profile:
    """A small job where the study's jobs run: one core, and whatever of the profile does not say how large they are."""
    kept = {"partition", "account", "qos", "constraint", "setup", "environment"}
    # A life that is shorter than the grace of a lost job would never submit it again.
    timeout_min = max(jobs.timeout_min, LEAST_TIMEOUT_MIN)
    sbatch = {flag: value for flag, value in jobs.sbatch.items() if not _is_of_large_jobs(flag)}
    sbatch |= {"dependency": dependency} if dependency else {}
    return Profile(**jobs.model_dump(include=kept), timeout_min=timeout_min, mem_gb=MEM_GB, sbatch=sbatch)


def _is_of_large_jobs(flag: str) -> bool:
    return flag.replace("_", "-").startswith(OF_LARGE_JOBS)
