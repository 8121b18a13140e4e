"""End a job that nobody wants any more."""

import contextlib
import os
import signal
import socket
import subprocess
from pathlib import Path
from typing import Any

from sia.cluster.queue import QUEUE, is_in_queue
from sia.errors import UserError


def cancel_job(job: dict[str, Any]) -> None:
    """Ask the job to save and end; one that has left, or is of another host, is left alone.

    Raises UserError with what scancel said.
    """
    if job["cluster"] == "local":
        for pid in local_processes(job):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
    elif job["cluster"] == "slurm" and is_in_queue(job):
        answer = subprocess.run(["scancel", job["job_id"]], capture_output=True, text=True, timeout=30)
        QUEUE.forget()
        if answer.returncode:
            raise UserError(f"scancel {job['job_id']}: {answer.stderr.strip()}")


def has_left(job: dict[str, Any]) -> bool:
    """Whether nothing of the job is queued or running any more, as far as this host can tell."""
    return not is_in_queue(job) and not (job["cluster"] == "local" and local_processes(job))


def local_processes(job: dict[str, Any]) -> list[int]:
    """The processes of a local job of this host: its controller, every rank, the shell that ran its setup lines.

    The shell's number is the job's, and it hands no signal on; where it has ended, the others may still be there.
    """
    if job["host"] != socket.gethostname():
        return []
    named = [int(place.name) for place in Path("/proc").glob("[0-9]*") if _is_of_submitit(place, job["folder"])]
    return sorted({*named, *([int(job["job_id"])] if is_in_queue(job) else [])})


def _is_of_submitit(place: Path, folder: str) -> bool:
    try:
        words = (place / "cmdline").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return False
    return folder in words and any(word.startswith("submitit.") for word in words)
