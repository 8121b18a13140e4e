"""The job of a detached driver: `jobs/submit.py` as a small Slurm job, so that no login shell has to live."""

import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sia.atomic import read_json
from sia.cluster.environment import clean_environment
from sia.cluster.profile import Profile
from sia.run_folder import runs_root

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

    def __call__(self) -> None:
        """Called by submitit in the job. Raises RuntimeError where the study did not end well."""
        code = Path(__file__).resolve().parents[2]
        environment = {**clean_environment(dict(os.environ), Profile()), "PYTHONPATH": str(code)}
        command = [sys.executable, "-u", str(code / "jobs" / "submit.py"), *self.arguments]
        # A session of its own: the signals that ask this job to be requeued are not meant for it.
        driver = subprocess.Popen(command, env=environment, start_new_session=True)
        try:
            status = driver.wait()
        except BaseException:
            driver.send_signal(signal.SIGINT)
            driver.wait(timeout=20)
            raise
        if status:
            raise RuntimeError(f"the driver ended with status {status}; its output is in this folder")


def driver_profile(jobs: Profile, dependency: str | None) -> Profile:
    """A small job where the study's jobs run: one core, and the same partition, account and time."""
    kept = {"partition", "account", "qos", "timeout_min", "setup", "environment"}
    sbatch = {"dependency": dependency} if dependency else {}
    return Profile(**jobs.model_dump(include=kept), mem_gb=MEM_GB, sbatch=sbatch)


def driver_of(study: str) -> dict[str, Any] | None:
    """The job record of the study's detached driver, if it has or had one."""
    return read_json(runs_root() / study / "driver.json")
