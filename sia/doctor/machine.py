"""This machine: packages and memory; whether torch sees its GPUs, and adds numbers up between ranks.

Run as a program, it is the probe of torch: a JSON line a step, so that one that hangs has told how far it came.
"""

import json
import os
import re
import sys
import tempfile
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Any

from sia.checks import Answer, Finding, ask, check, ok, problem, warning
from sia.cluster.profile import visible_gpus
from sia.orphans import end_with

INSTALL = "make a fresh environment with `make`, or: pip install -e ."
# The driver of a sweep with Ray Tune, and sixteen trials of about 116 MB.
ENOUGH_GB = 2.5
CGROUPS = (
    (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")),
    (Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"), Path("/sys/fs/cgroup/memory/memory.usage_in_bytes")),
)
TORCH_SECONDS = 40.0
PROBE = [sys.executable, "-m", "sia.doctor.machine"]


@check("packages")
def packages(requirements: list[str] | None = None) -> Finding:
    """The installed versions against setup.cfg's ranges, as they were when sia was installed."""
    from packaging.requirements import Requirement

    faults = []
    for one in map(Requirement, requires("sia") or [] if requirements is None else requirements):
        if one.marker is not None and not one.marker.evaluate({"extra": ""}):
            continue
        try:
            found = version(one.name)
        except PackageNotFoundError:
            found = "missing"
        if found == "missing" or not one.specifier.contains(found, prereleases=True):
            faults.append(f"{one.name} {found} (needs {one.specifier})")
    return problem(", ".join(faults), INSTALL) if faults else ok("all within their ranges")


@check("memory")
def memory() -> Finding:
    (available,) = re.findall(r"MemAvailable: +([0-9]+) kB", Path("/proc/meminfo").read_text())
    free_gb = min([int(available) * 1024 / 1e9, *_cgroup_gb()])
    said = f"{free_gb:.1f} GB free on this machine"
    cure = "a driver needs about 0.7 GB and 0.12 GB a run at once: lower --max-concurrent, or use --detach"
    return ok(said) if free_gb >= ENOUGH_GB else warning(said, cure)


def _cgroup_gb() -> list[float]:
    """What a login node's limit on a user's memory leaves."""
    there = [(limit.read_text().strip(), used) for limit, used in CGROUPS if limit.is_file() and used.is_file()]
    return [(int(limit) - int(used.read_text())) / 1e9 for limit, used in there if limit.isdigit()]


@dataclass(frozen=True)
class Probed:
    """The steps of the probe that came to an end, by name, and how its process ended."""

    steps: dict[str, dict[str, Any]]
    answer: Answer


def probe_torch(command: list[str] | None = None, timeout_s: float = TORCH_SECONDS) -> Probed:
    answer = ask(command or PROBE, timeout_s)
    lines = [json.loads(line) for line in answer.output.splitlines() if line.startswith("{") and line.endswith("}")]
    return Probed({line["step"]: line for line in lines}, answer)


@check("torch")
def torch_imports(probed: Probed) -> Finding:
    if "import" in probed.steps:
        return ok(f"version {probed.steps['import']['version']}")
    return problem(
        f"it cannot be imported: {probed.answer.reason}", "pip install -e . (see INSTALL of your cluster's torch)"
    )


@check("GPU")
def gpu(probed: Probed, asked_for: int) -> Finding:
    """`asked_for` is the profile's number of GPUs a node."""
    present, seen = len(visible_gpus()), probed.steps.get("gpus")
    if seen is None:
        return problem(f"torch does not say: {probed.answer.reason}", "see that nvidia-smi answers on this host")
    if seen["gpus"]:
        return ok(f"{seen['gpus']} seen by torch: {', '.join(sorted(set(seen['names'])))}")
    if present:
        built = f"built for CUDA {seen['built_for']}" if seen["built_for"] else "built without CUDA"
        cure = "install a build of torch that fits the driver (nvidia-smi tells its CUDA version)"
        return problem(f"{present} here, but torch ({built}) sees none", cure)
    note = "; the profile's are on the nodes: run this command there too, with srun" if asked_for else ""
    return ok(f"none here: training runs on the CPU{note}")


@check("collectives")
def collectives(probed: Probed) -> Finding:
    """What ranks exchange gradients by; on a GPU that is NCCL."""
    seen, done = probed.steps.get("gpus", {}), probed.steps.get("all_reduce")
    if done is None:
        after = list(probed.steps)[-1] if probed.steps else "nothing"
        cure = "run it by hand: NCCL_DEBUG=INFO python -m sia.doctor.machine"
        return problem(f"no all-reduce (the probe came as far as: {after}): {probed.answer.reason}", cure)
    if seen.get("gpus") and not seen.get("nccl"):
        return warning(
            "torch sees a GPU but has no NCCL: ranks fall back to gloo", "install a build of torch with NCCL"
        )
    return ok(f"an all-reduce of {done['backend']} works")


def probe() -> None:
    """Import torch, look for GPUs, then add numbers up in a group of one process: NCCL on a GPU, gloo without."""
    import torch
    import torch.distributed as dist

    def tell(**values: Any) -> None:
        print(json.dumps(values), flush=True)

    tell(step="import", version=torch.__version__)
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    names = [torch.cuda.get_device_name(number) for number in range(gpus)]
    tell(step="gpus", gpus=gpus, names=names, built_for=torch.version.cuda, nccl=dist.is_nccl_available())
    backend, device = ("nccl", "cuda:0") if gpus and dist.is_nccl_available() else ("gloo", "cpu")
    with tempfile.TemporaryDirectory() as folder:
        dist.init_process_group(backend, init_method=f"file://{folder}/meet", rank=0, world_size=1)
        numbers = torch.ones(4, device=device)
        dist.all_reduce(numbers)
        tell(step="all_reduce", backend=backend, total=float(numbers.sum()))
        dist.destroy_process_group()


if __name__ == "__main__":
    end_with(os.getppid())  # a command that is left does not look after it
    probe()
