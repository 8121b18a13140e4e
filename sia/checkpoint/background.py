"""Saving that training hardly waits for: the state is copied, and a thread of low priority writes the copy."""

import contextlib
import copy
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any

import torch
from torch import Tensor

GIVE_WAY = 10  # to the threads that compute, on Unix's scale from 0 to 19


class Background:
    """One task at a time, in a thread. What it raises, whoever waits for it or looks at it next raises."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, initializer=_give_way)
        self._task: Future[None] | None = None

    def begin(self, task: Callable[[], None]) -> None:
        """After the one before has ended."""
        self.wait()
        self._task = self._thread.submit(task)

    def look(self) -> None:
        """Raise what the task raised, if it has ended; it is not waited for."""
        if self._task is not None and self._task.done():
            self.wait()

    def wait(self) -> None:
        """Until the task has ended; one that was interrupted here can be waited for again."""
        if self._task is not None:
            wait([self._task])
            ended, self._task = self._task, None
            ended.result()


@contextlib.contextmanager
def on_one_thread() -> Iterator[None]:
    """torch computes on this thread alone: one fills the memory's bandwidth, and many that meet after each of thousands
    of small tensors wait for the slowest, on a busy machine for seconds.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class KeptCopy:
    """A copy on the host, in memory that is kept for the next one; for a GPU's tensors it is pinned."""

    def __init__(self) -> None:
        self._memory: list[Tensor] = []

    @torch.no_grad()
    def of(self, content: dict[str, Any]) -> dict[str, Any]:
        """`content` with its tensors in this memory, which the next call overwrites; all else is copied, too."""
        tensors = list(_tensors(content))
        if [_kind(tensor) for tensor in tensors] != [_kind(kept) for kept in self._memory]:
            self._memory = [torch.empty_like(one, device="cpu", pin_memory=one.is_cuda) for one in tensors]
        pairs = list(zip(tensors, self._memory, strict=True))
        for tensor, kept in pairs:
            kept.copy_(tensor, non_blocking=True)
        if any(tensor.is_cuda for tensor in tensors):
            torch.cuda.synchronize()
        # What deepcopy takes for copied already it leaves as it is.
        return copy.deepcopy(content, {id(tensor): kept for tensor, kept in pairs})


def _tensors(part: object) -> Iterator[Tensor]:
    if isinstance(part, Tensor):
        yield part
    elif isinstance(part, dict):
        for value in part.values():
            yield from _tensors(value)
    elif isinstance(part, list | tuple):
        for value in part:
            yield from _tensors(value)


def _kind(tensor: Tensor) -> tuple[torch.dtype, torch.Size]:
    return tensor.dtype, tensor.shape


def _give_way() -> None:
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), GIVE_WAY)
