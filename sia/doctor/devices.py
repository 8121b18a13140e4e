"""Whether there is a GPU, torch sees it, and its collective operations work; torch is in a process of its own."""

import json
import sys
from dataclasses import dataclass
from typing import Any

from sia.checks import Answer, Finding, ask, check, ok, problem, warning
from sia.cluster.profile import visible_gpus

TORCH_SECONDS = 40.0
PROBE = [sys.executable, "-m", "sia.doctor.torch_probe"]


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
        cure = "run it by hand: NCCL_DEBUG=INFO python -m sia.doctor.torch_probe"
        return problem(f"no all-reduce (the probe came as far as: {after}): {probed.answer.reason}", cure)
    if seen.get("gpus") and not seen.get("nccl"):
        return warning(
            "torch sees a GPU but has no NCCL: ranks fall back to gloo", "install a build of torch with NCCL"
        )
    return ok(f"an all-reduce of {done['backend']} works")
