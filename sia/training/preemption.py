"""A signal to a flag: the job is told to stop, and stops at the end of a step, with a checkpoint."""

import signal
from types import FrameType

SIGNALS = (signal.SIGUSR2, signal.SIGTERM)


class PreemptionFlag:
    """Remembers which signal arrived first. SIGUSR2 asks for a requeue, SIGTERM for an end."""

    def __init__(self) -> None:
        self.received: int | None = None

    def install(self) -> "PreemptionFlag":
        """Take over the signals of this process; to be called from the main thread, after submitit took them."""
        for number in SIGNALS:
            signal.signal(number, self._remember)
        return self

    def _remember(self, number: int, frame: FrameType | None) -> None:
        # No work here: a checkpoint taken inside a handler fails now and then.
        self.received = self.received or number

    def __bool__(self) -> bool:
        return self.received is not None
