"""What torch sees and can do here, a JSON line a step, so that a process that hangs has told how far it came."""

import json
import tempfile
from typing import Any


def main() -> None:
    """Import torch, look for GPUs, then add numbers up in a group of one process: NCCL on a GPU, gloo without."""
    import torch
    import torch.distributed as dist

    _tell(step="import", version=torch.__version__)
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    names = [torch.cuda.get_device_name(number) for number in range(gpus)]
    _tell(step="gpus", gpus=gpus, names=names, built_for=torch.version.cuda, nccl=dist.is_nccl_available())
    backend, device = ("nccl", "cuda:0") if gpus and dist.is_nccl_available() else ("gloo", "cpu")
    _tell(step="all_reduce", backend=backend, total=_all_reduce(backend, device))


def _all_reduce(backend: str, device: str) -> float:
    import torch
    import torch.distributed as dist

    with tempfile.TemporaryDirectory() as folder:
        dist.init_process_group(backend, init_method=f"file://{folder}/meet", rank=0, world_size=1)
        numbers = torch.ones(4, device=device)
        dist.all_reduce(numbers)
        total = float(numbers.sum())
        dist.destroy_process_group()
    return total


def _tell(**values: Any) -> None:
    print(json.dumps(values), flush=True)


if __name__ == "__main__":
    main()
