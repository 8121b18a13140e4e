"""How long a run and a study have to go, by the seconds of an epoch; None where that is not known. Arithmetic alone.

What jobs wait for in a queue, their starts and the test split are left out.
"""

import heapq
from collections.abc import Sequence
from typing import NamedTuple


class Left(NamedTuple):
    """What a run has to go: epochs of all its stages, a part of one counting as such; seconds an epoch."""

    epochs: float
    epoch_seconds: float | None
    at_work: bool  # a job trains it, or waits in the queue; else it waits for one of these to end

    @property
    def seconds(self) -> float | None:
        return None if self.epoch_seconds is None else self.epochs * self.epoch_seconds


def study_seconds(runs: Sequence[Left]) -> float | None:
    """Until the last of the runs is done, if as many of them train at once as are at work now, the longest first.

    A run that nothing is known of is taken to need as long for an epoch as the others do on average.
    """
    known = [run.epoch_seconds for run in runs if run.epoch_seconds is not None]
    unfinished = [run for run in runs if run.epochs > 0]
    if not known or not any(run.at_work for run in unfinished):
        return None
    average = sum(known) / len(known)
    seconds = [(run.epochs * average if run.seconds is None else run.seconds, run.at_work) for run in unfinished]
    places = [taken for taken, at_work in seconds if at_work]
    heapq.heapify(places)
    for taken in sorted((taken for taken, at_work in seconds if not at_work), reverse=True):
        heapq.heapreplace(places, places[0] + taken)
    return max(places)
