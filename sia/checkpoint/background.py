"""Saving that training hardly waits for: the state is copied, and a thread of low priority writes the copy."""

import contextlib
import copy
import fcntl
import mmap
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any

import torch
from torch import Tensor

GIVE_WAY = 10  # to the threads that compute, on Unix's scale from 0 to 19
PIECE, BLOCK = 16 << 20, 4096  # bytes of a write past the cache, and what it is a multiple of
PAST_THE_CACHE = getattr(os, "O_DIRECT", 0)


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
        torch._foreach_copy_(self._memory, tensors, non_blocking=True)
        if any(tensor.is_cuda for tensor in tensors):
            torch.cuda.synchronize()
        copied: dict[str, Any] = _with_tensors(content, iter(self._memory))
        return copied


class PastTheCache:
    """Writes a new file past the kernel's cache, which would copy every byte: that is half of what a save costs.

    Where the file system takes no such writes they go through the cache, and so does what a `flush` finds of a block
    that is not whole. Raises OSError.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor, self._filled = descriptor, 0
        self._piece = memoryview(mmap.mmap(-1, PIECE))  # of whole pages, as such a write has to be
        self._ask_for(PAST_THE_CACHE)

    def write(self, data: bytes) -> int:
        given = left = memoryview(data).cast("B")
        while len(left):
            some = left[: PIECE - self._filled]
            self._piece[self._filled : self._filled + len(some)] = some
            self._filled, left = self._filled + len(some), left[len(some) :]
            if self._filled == PIECE:
                self._put(0, PIECE)
                self._filled = 0
        return len(given)

    def flush(self) -> None:
        whole, filled = self._filled // BLOCK * BLOCK, self._filled
        self._put(0, whole)
        self._ask_for(0)
        self._put(whole, filled)
        self._filled = 0

    def _put(self, start: int, end: int) -> None:
        while start < end:
            try:
                start += os.write(self._descriptor, self._piece[start:end])
            except OSError:  # a full disk refuses it again
                if not self._flags() & PAST_THE_CACHE:
                    raise
                self._ask_for(0)

    def _ask_for(self, flag: int) -> None:
        with contextlib.suppress(OSError):
            fcntl.fcntl(self._descriptor, fcntl.F_SETFL, self._flags() & ~PAST_THE_CACHE | flag)

    def _flags(self) -> int:
        return fcntl.fcntl(self._descriptor, fcntl.F_GETFL)


def _tensors(part: object) -> Iterator[Tensor]:
    if isinstance(part, Tensor):
        yield part
    elif isinstance(part, dict):
        for value in part.values():
            yield from _tensors(value)
    elif isinstance(part, list | tuple):
        for value in part:
            yield from _tensors(value)


def _with_tensors(part: Any, others: Iterator[Tensor]) -> Any:
    """A copy of `part`, its tensors replaced by others in the order of `_tensors`."""
    if isinstance(part, Tensor):
        return next(others)
    if isinstance(part, dict):
        copied = copy.copy(part)  # a model's state is a dictionary with an attribute
        for key, value in part.items():
            copied[key] = _with_tensors(value, others)
        return copied
    if isinstance(part, list | tuple):
        return type(part)(_with_tensors(value, others) for value in part)
    return part


def _kind(tensor: Tensor) -> tuple[torch.dtype, torch.Size]:
    return tensor.dtype, tensor.shape


def _give_way() -> None:
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), GIVE_WAY)
