"""Worker processes that do not outlive whoever started them, even if that is killed."""

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor
from types import TracebackType
from typing import Any

EVERY_SECONDS = 2.0


def usable_cores() -> int:
    """Those that this process may use, where the system tells it; `taskset` and Slurm give fewer than there are."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def pool(processes: int) -> ProcessPoolExecutor:
    # Not forked: the parent may hold threads and open files.
    context = multiprocessing.get_context("spawn")
    return Pool(processes, context, initializer=end_with, initargs=(os.getpid(),))


class Pool(ProcessPoolExecutor):
    """A Ctrl-C, which a terminal tells all of its processes, is heard here alone, and ends the workers at once."""

    def submit(self, call: Callable[..., Any], /, *given: Any, **named: Any) -> "Future[Any]":
        before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])  # a worker that starts here keeps it so
        try:
            return super().submit(call, *given, **named)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        if isinstance(error, KeyboardInterrupt):
            for worker in multiprocessing.active_children():
                worker.terminate()
            self.shutdown(cancel_futures=True)
        return super().__exit__(kind, error, trace)


def end_with(parent: int) -> None:
    """End this process soon after its parent process has gone; to be called in the worker."""
    threading.Thread(target=_watch, args=(parent,), daemon=True).start()


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(EVERY_SECONDS)
    os._exit(1)
