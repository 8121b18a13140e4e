"""Worker processes that do not outlive whoever started them, even if that is killed."""

import os
import threading
import time

EVERY_SECONDS = 2.0


def end_with(parent: int) -> None:
    """End this process soon after its parent process has gone; to be called in the worker."""
    threading.Thread(target=_watch, args=(parent,), daemon=True).start()


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(EVERY_SECONDS)
    os._exit(1)
