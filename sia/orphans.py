"""Worker processes that do not outlive whoever started them, even if that is killed."""

import multiprocessing
import os
import threading
import time
from concurrent.futures import ProcessPoolExecutor

EVERY_SECONDS = 2.0


def usable_cores() -> int:
    """Those that this process may use, where the system tells it; `taskset` and Slurm give fewer than there are."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def pool(processes: int) -> ProcessPoolExecutor:
    # Not forked: the parent may hold threads and open files.
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(processes, context, initializer=end_with, initargs=(os.getpid(),))


def end_with(parent: int) -> None:
    """End this process soon after its parent process has gone; to be called in the worker."""
    threading.Thread(target=_watch, args=(parent,), daemon=True).start()


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(EVERY_SECONDS)
    os._exit(1)
