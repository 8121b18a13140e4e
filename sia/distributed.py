"""The ranks of one job: how they find each other, and how they share embeddings with their gradient."""

import os
import socket
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from sia.atomic import read_json, write_json
from sia.errors import UserError

TIMEOUT = timedelta(minutes=10)
SIGN_OF_LIFE_SECONDS = 5.0
T = TypeVar("T")


@dataclass(frozen=True)
class Ranks:
    """This process's place among the processes of its job."""

    rank: int = 0
    world_size: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    store: dist.Store | None = field(default=None, compare=False)

    @classmethod
    def alone(cls, local_rank: int = 0) -> "Ranks":
        """One process, on its GPU where there is one."""
        return cls(device=device_of(local_rank, torch.cuda.device_count()))

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    def any(self, flag: bool) -> bool:
        """Whether the flag is set on any rank; all ranks get the same answer."""
        return bool(self.largest(flag))

    def largest(self, value: float) -> float:
        """The largest of the ranks' values. The device is not waited for."""
        if self.world_size == 1:
            return value
        shared = torch.tensor(value, dtype=torch.float64)
        dist.all_reduce(shared, dist.ReduceOp.MAX)
        return float(shared)

    def first_says(self, value: Any) -> Any:
        """The first rank's value, on every rank: what is read off files, one rank reads for all."""
        if self.world_size == 1:
            return value
        told = [value]
        dist.broadcast_object_list(told, 0, device=torch.device("cpu"))
        return told[0]

    def barrier(self) -> None:
        self.any(False)

    def each_in_its_time(self, work: Callable[[], T]) -> T:
        """Do what may take the ranks very different times; returns when all have done it.

        Raises RuntimeError where a rank gives no sign of life while it is waited for.
        """
        if self.store is None:
            return work()
        done = threading.Event()
        threading.Thread(target=_show_life, args=(self.store, self.rank, done), daemon=True).start()
        try:
            result = work()
        finally:
            done.set()
        self.store.set(f"done/{self.rank}", "")
        for rank in range(self.world_size):
            _wait_for_rank(self.store, rank)
        return result

    def share(self, tensors: Iterable[Tensor]) -> None:
        """Give every rank the first one's values of these parameters and buffers."""
        if self.world_size > 1:
            for tensor in tensors:
                dist.broadcast(tensor, 0)

    def average_gradients(self, module: nn.Module) -> None:
        """Give every rank the mean of the ranks' gradients of a module that DistributedDataParallel does not hold."""
        if self.world_size > 1:
            for parameter in module.parameters():
                assert parameter.grad is not None
                dist.all_reduce(parameter.grad)
                parameter.grad.div_(self.world_size)

    def gather(self, rows: Tensor) -> Tensor:
        """This rank's rows [n, ...] -> all ranks' rows [G, ...], in rank order, without gradient; n may differ."""
        if self.world_size == 1:
            return rows
        counts = [torch.zeros(1, dtype=torch.long) for _ in range(self.world_size)]
        dist.all_gather(counts, torch.tensor([len(rows)]))
        longest = int(torch.stack(counts).max())
        padded = rows.new_zeros(longest, *rows.shape[1:])
        padded[: len(rows)] = rows
        parts = [torch.empty_like(padded) for _ in counts]
        dist.all_gather(parts, padded)
        return torch.cat([part[: int(count)] for part, count in zip(parts, counts, strict=True)])


class JobNotNeeded(Exception):
    """Rank 0 has called the job off."""


def call_off(meeting_place: Path, reason: str) -> None:
    """Tell the ranks that wait for rank 0 to leave: there is nothing to do."""
    write_json(meeting_place, {"leave": reason})


def device_of(local_rank: int, num_gpus: int) -> torch.device:
    """The device of a rank, given the GPUs that it sees: all of its node's, or (bound by Slurm) its own alone.

    Raises UserError where there are more ranks on a node than GPUs.
    """
    if num_gpus == 0:
        return torch.device("cpu")
    if num_gpus == 1:
        return torch.device("cuda", 0)
    if local_rank >= num_gpus:
        raise UserError(f"rank {local_rank} of a node that has {num_gpus} GPUs; set tasks_per_node to gpus_per_node")
    return torch.device("cuda", local_rank)


def gather_with_gradient(rows: Tensor, world_size: int) -> Tensor:
    """This rank's embeddings [B, D] -> those of all ranks [G, D], in rank order.

    The gradient that comes back to a row is the sum over all ranks' losses. Where each rank computes the loss of the
    whole gathered batch, that is world_size times its gradient, and DistributedDataParallel's mean over the ranks
    then makes the gradient of one process on the whole batch.
    """
    return rows if world_size == 1 else _Gather.apply(rows, world_size)


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, world_size: int) -> Tensor:
        parts = [torch.empty_like(rows) for _ in range(world_size)]
        dist.all_gather(parts, rows.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        total = gradients[0].contiguous().clone()
        dist.all_reduce(total)
        return total.chunk(dist.get_world_size())[dist.get_rank()], None


@contextmanager
def joined_ranks(rank: int, world_size: int, local_rank: int, meeting_place: Path) -> Any:
    """Join the job's other ranks; yields Ranks and leaves the group in the end.

    Rank 0 opens a port that the system chooses and publishes it in the file `meeting_place`, which lies in a folder
    that all ranks see: no port is fixed, so jobs that share a node do not collide, and no node's name need resolve
    but that of rank 0's host.
    """
    device = Ranks.alone(local_rank).device
    if device.type == "cuda":
        torch.cuda.set_device(device)
    if world_size == 1:
        yield Ranks(device=device)
        return
    one_host = int(os.environ.get("SLURM_JOB_NUM_NODES", "1")) == 1
    if one_host and "GLOO_SOCKET_IFNAME" not in os.environ and os.path.exists("/sys/class/net/lo"):
        # Gloo looks its own host name up, which fails on machines whose name does not resolve.
        os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    store = _meet(rank, world_size, meeting_place, "127.0.0.1" if one_host else socket.gethostname())
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(backend, store=store, rank=rank, world_size=world_size, timeout=TIMEOUT)
    if rank == 0:
        # All have met; a later job of the same number must not find it.
        meeting_place.unlink(missing_ok=True)
    yield Ranks(rank, world_size, device, store)
    # Not after an error: the other ranks may wait in a collective operation, and this process ends anyway.
    dist.destroy_process_group()


def _meet(rank: int, world_size: int, meeting_place: Path, host: str) -> dist.Store:
    if rank == 0:
        store = dist.TCPStore(host, 0, world_size, is_master=True, timeout=TIMEOUT, wait_for_workers=False)
        write_json(meeting_place, {"host": host, "port": store.port})
        return store
    deadline = time.monotonic() + TIMEOUT.total_seconds()
    while (address := read_json(meeting_place)) is None:
        if time.monotonic() > deadline:
            seconds = f"{TIMEOUT.total_seconds():.0f} s"
            raise UserError(f"{meeting_place}: rank 0 did not publish its address within {seconds}; see its log")
        time.sleep(0.1)
    if "leave" in address:
        raise JobNotNeeded(address["leave"])
    return dist.TCPStore(address["host"], address["port"], world_size, timeout=TIMEOUT)


def _show_life(store: dist.Store, rank: int, done: threading.Event) -> None:
    while not done.wait(SIGN_OF_LIFE_SECONDS):
        store.add(f"signs/{rank}", 1)


def _wait_for_rank(store: dist.Store, rank: int) -> None:
    signs, heard = 0, time.monotonic()
    while not store.check([f"done/{rank}"]):
        time.sleep(0.5)
        if (now := store.add(f"signs/{rank}", 0)) != signs:
            signs, heard = now, time.monotonic()
        if time.monotonic() - heard > TIMEOUT.total_seconds():
            raise RuntimeError(f"rank {rank} gave no sign of life for {TIMEOUT.total_seconds():.0f} s; see its log")
