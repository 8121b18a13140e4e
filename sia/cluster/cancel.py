"""End a job that nobody wants any more."""

import os
import signal
import socket
import subprocess
from typing import Any

from sia.cluster.state import is_in_queue
from sia.errors import UserError


def cancel_job(job: dict[str, Any]) -> None:
    """Ask the job to save and end. Raises UserError where this host cannot reach it."""
    if not is_in_queue(job):
        return
    if job["cluster"] == "slurm":
        answer = subprocess.run(["scancel", job["job_id"]], capture_output=True, text=True, timeout=30)
        if answer.returncode:
            raise UserError(f"scancel {job['job_id']}: {answer.stderr.strip()}")
    elif job["host"] == socket.gethostname():
        # submitit's local controller hands the signal on to every rank.
        os.kill(int(job["job_id"]), signal.SIGTERM)
    else:
        raise UserError(f"job {job['job_id']} runs on {job['host']}; cancel it there")
