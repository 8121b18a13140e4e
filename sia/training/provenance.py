"""Which code and which packages trained a run."""

import json
import platform
import socket
import subprocess
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from sia.distributed import Ranks
from sia.run_folder import RunFolder

PACKAGES = ("sia", "torch", "torchaudio", "torchvision", "submitit", "ray", "mlflow", "h5py", "numpy")


def record_provenance(run: RunFolder, stage: int, job_id: str, ranks: Ranks) -> None:
    """Append a line to the run's provenance.jsonl: commit, packages, host, ranks and device of this job."""
    row = {
        "stage": stage,
        "job_id": job_id,
        "time": time.time(),
        "git_commit": _git("rev-parse", "HEAD"),
        "git_dirty": bool(_git("status", "--porcelain", "--untracked-files=no")),
        "host": socket.gethostname(),
        "world_size": ranks.world_size,
        "device": str(ranks.device),
        "python": platform.python_version(),
        **{package: _version(package) for package in PACKAGES},
    }
    with open(run.provenance, "a") as stream:
        stream.write(json.dumps(row) + "\n")


def _git(*arguments: str) -> str:
    command = ["git", "-C", str(Path(__file__).resolve().parents[2]), *arguments]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=10).stdout.strip()
    except (OSError, subprocess.TimeoutExpired):
        return ""


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""
