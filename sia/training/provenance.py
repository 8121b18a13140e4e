"""Which code and which packages trained a run. It loads no torch."""

import platform
import socket
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sia import git
from sia.atomic import read_json
from sia.run.folder import RunFolder
from sia.run.row_files import append_row

if TYPE_CHECKING:
    from sia.distributed import Ranks

PACKAGES = ("sia", "torch", "torchaudio", "torchvision", "submitit", "ray", "h5py", "numpy")


def record_provenance(run: RunFolder, stage: int, job_id: str, ranks: "Ranks") -> None:
    """Append a line to the run's provenance.jsonl: code, commit, packages, host, ranks and device of this job.

    What is learnt depends on the ranks by rounding where batch_norm is sync, and by its statistics where it is local.
    """
    tree = Path(__file__).resolve().parents[2]
    row = {
        "stage": stage,
        "job_id": job_id,
        "time": time.time(),
        **_code(tree),
        "host": socket.gethostname(),
        "world_size": ranks.world_size,
        "batch_norm": run.experiment().training.batch_norm,
        "device": str(ranks.device),
        "python": platform.python_version(),
        **{package: _version(package) for package in PACKAGES},
    }
    append_row(run.provenance, row)


def _code(tree: Path) -> dict[str, Any]:
    """Of a snapshot (code.json beside it), or of a working tree."""
    found = read_json(tree / "code.json")
    if found is not None:
        return {"code": str(tree), **{key: found[key] for key in ("git_commit", "git_dirty")}}
    return {"code": str(tree), "git_commit": git.commit(tree), "git_dirty": git.is_dirty(tree)}


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""
