"""A signal to a flag: the job is told to stop, and stops at the end of a step, with a checkpoint."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import resource_tracker
from types import FrameType

SIGNALS = (signal.SIGUSR2, signal.SIGTERM)


@contextmanager
def signals_blocked() -> Iterator[None]:
    """Processes started meanwhile never hear these signals; this one hears them afterwards.

    Some clusters signal every process of a job: a loader's worker that died of it would make an error of a preemption.
    """
    # Python unblocks SIGTERM when it starts this helper, so it must be running before.
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class PreemptionFlag:
    """Remembers which signal arrived first. SIGUSR2 asks for a requeue, SIGTERM for an end."""

    def __init__(self) -> None:
        self.received: int | None = None

    def install(self, *numbers: int) -> "PreemptionFlag":
        """Take over signals of this process, by default both; from the main thread, after submitit took them."""
        for number in numbers or SIGNALS:
            signal.signal(number, self._remember)
        return self

    def _remember(self, number: int, frame: FrameType | None) -> None:
        # No work here: a checkpoint taken inside a handler fails now and then.
        self.received = self.received or number

    def __bool__(self) -> bool:
        return self.received is not None
