"""Learning rate as a function of the step, from 0; a schedule has no state, so a resume cannot change it."""

import math
from collections.abc import Callable

Schedule = Callable[[int], float]


def calr(rate: float, total_steps: int) -> Schedule:
    """Cosine annealing from `rate` to 0 over all steps (SGDR, Loshchilov and Hutter 2017, equation 5, one cycle)."""
    return lambda step: _cosine(rate, min(step, total_steps) / total_steps)


def calwr(rate: float, first_cycle_steps: int, multiplier: int) -> Schedule:
    """Cosine annealing with warm restarts: each cycle is `multiplier` times as long as the one before (SGDR)."""

    def at(step: int) -> float:
        begin, length = 0, first_cycle_steps
        while step >= begin + length:
            begin, length = begin + length, length * multiplier
        return _cosine(rate, (step - begin) / length)

    return at


def _cosine(rate: float, share: float) -> float:
    return rate * (1 + math.cos(math.pi * share)) / 2
