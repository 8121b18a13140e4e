"""A sweep whose driver is itself a small Slurm job, so that no login shell has to live: `jobs/submit.py --detach`."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from sia.checks import ask
from sia.cluster.launch import Launch
from sia.cluster.profile import Profile, clean_environment
from sia.cluster.slurm_says import cluster_is_away
from sia.cluster.submit import submit
from sia.cluster.task import JobFiles, Task
from sia.errors import UsageError, UserError
from sia.gate import own_folder
from sia.run.driver import OWN_JOB, driver_of, refuse_if_driven
from sia.run.folder import driver_folder, runs_root
from sia.run.lock import HeartbeatLock, LockHeld
from sia.run.records import Request
from sia.sweep.grid import Grid
from sia.sweep.request import remember
from sia.trackers.tracker import tracker_environment
from sia.training.preemption import PreemptionFlag

LEAST_TIMEOUT_MIN = 30
MOST_RESTARTS = 100
ASK_AGAIN_SECONDS = 15.0
ANSWER_SECONDS = 30.0
ENDED_BY_TERM = 128 + signal.SIGTERM
# Flags of a profile's `sbatch:` that say how large its jobs are, or what only they need; the others may be mandatory.
OF_LARGE_JOBS = (
    *("gres", "gpu", "tres", "mem", "exclusive", "ntasks", "cpus", "cores", "sockets", "threads", "core-spec"),
    *("thread-spec", "extra-node-info", "hint", "distribution", "contiguous", "switches", "spread-job", "nodefile"),
    *("use-min-nodes", "overcommit", "bb", "licenses", "tmp", "requeue", "dependency", "network"),
)
MEM_GB = 4.0  # Ray takes about 650 MB, and 116 MB for each trial that runs at once


def detach(grid: Grid, launch: Launch, request: Request, dependency: str | None) -> str:
    """Submit the driver of a study as a job of its own, which repeats the request; the job's number.

    Raises UsageError without a Slurm, UserError where the study is driven already.
    """
    check_detach(launch)
    folder = driver_folder(grid.study)
    own_folder(folder)
    try:
        with HeartbeatLock(folder / "detach.lock"):
            refuse_if_driven(grid.study)
            remember(request.model_copy(update={"cluster": "slurm", "detach": True}), grid)
            profile = driver_profile(launch.profile, dependency)
            environment = {**tracker_environment(grid.study), **profile.environment}
            given = profile.model_copy(update={"environment": environment})
            submit(driving_task(grid.study), "slurm", given, launch.code)
    except LockHeld as error:
        raise UserError(f"study {grid.study} is being detached already ({error})") from None
    job = driver_of(grid.study)
    return job.job_id if job is not None else ""


def driving_task(study: str) -> "DriveStudy":
    return DriveStudy(str(runs_root() / study))


def check_detach(launch: Launch) -> None:
    """Raises UsageError without a Slurm."""
    if launch.cluster != "slurm":
        raise UsageError("--detach needs Slurm, where the driver becomes a job; on one machine start it in tmux")


def driver_profile(jobs: Profile, dependency: str | None) -> Profile:
    """A small job where the study's jobs run: one core, and whatever of the profile does not say how large they are."""
    kept = {"partition", "account", "qos", "constraint", "setup", "environment"}
    # A life that is shorter than the grace of a lost job would never submit it again.
    timeout_min = max(jobs.timeout_min, LEAST_TIMEOUT_MIN)
    large = {flag for flag in jobs.sbatch if flag.replace("_", "-").startswith(OF_LARGE_JOBS)}
    sbatch = {flag: value for flag, value in jobs.sbatch.items() if flag not in large}
    sbatch |= {"dependency": dependency} if dependency else {}
    return Profile(**jobs.model_dump(include=kept), timeout_min=timeout_min, mem_gb=MEM_GB, sbatch=sbatch)


@dataclass(frozen=True)
class DriveStudy(Task):
    """Drive the study in `folder` as it was asked for."""

    folder: str

    @property
    def files(self) -> JobFiles:
        study = Path(self.folder)
        return JobFiles(f"driver of {study.name}", study / "driver", study / "driver.json")

    def __call__(self) -> None:
        """Called by submitit in the job. Raises RuntimeError where the study did not end well."""
        from submitit import JobEnvironment

        job = JobEnvironment()
        # A partition that preempts sends it, and leaves a while to end.
        told = PreemptionFlag().install(signal.SIGTERM)
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
        command = [sys.executable, "-u", str(code / "jobs" / "submit.py"), "--again", Path(self.folder).name]
        driver = subprocess.Popen(command, env=environment, start_new_session=True)
        try:
            return driver.wait()
        except BaseException:
            driver.send_signal(signal.SIGINT)
            driver.wait(timeout=20)
            raise


def _goes_on(job_id: str) -> bool:
    """Whether Slurm still counts the job as running, and has not restarted it too often."""
    if int(os.environ.get("SLURM_RESTART_COUNT", "0")) >= MOST_RESTARTS:
        return False
    command = ["squeue", "--noheader", "--jobs", job_id, "--format", "%T"]
    while cluster_is_away((answer := ask(command, ANSWER_SECONDS)).errors):
        time.sleep(ASK_AGAIN_SECONDS)  # without the controller it cannot be requeued either
    return answer.output.strip() == "RUNNING"
