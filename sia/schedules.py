"""Learning rate as a function of the step, from 0; a schedule has no state, so a resume cannot change it.

Each function raises ValueError for a length below one step.
"""

import math
from collections.abc import Callable

Schedule = Callable[[int], float]


def calr(rate: float, total_steps: int) -> Schedule:
    """Cosine annealing from `rate` to 0 over all steps (SGDR, Loshchilov and Hutter 2017, equation 5, one cycle)."""
    _check_length("total_steps", total_steps)
    return lambda step: _cosine(rate, min(step, total_steps) / total_steps)


def calwr(rate: float, first_cycle_steps: int, multiplier: int) -> Schedule:
    """Cosine annealing with warm restarts: each cycle is `multiplier` times as long as the one before (SGDR)."""
    _check_length("first_cycle_steps", first_cycle_steps)
    _check_length("multiplier", multiplier)

    def at(step: int) -> float:
        begin, length = 0, first_cycle_steps
        while step >= begin + length:
            begin, length = begin + length, length * multiplier
        return _cosine(rate, (step - begin) / length)

    return at


def cylr(low: float, high: float, period_steps: int) -> Schedule:
    """A cyclic rate: half a cosine from `low` up to `high`, half a cosine down again, over and over.

    Smith 2017 ([31] of the paper) with the cosine of Merkx et al. 2019 ([17]), who took 1e-6, 2e-4 and four epochs.
    """
    _check_length("period_steps", period_steps)
    if low > high:
        raise ValueError(f"low {low} is above high {high}; swap them")
    return lambda step: low + (high - low) * (1 - math.cos(2 * math.pi * step / period_steps)) / 2


def constant(rate: float) -> Schedule:
    """The same rate at every step."""
    return lambda step: rate


def warmup(schedule: Schedule, steps: int) -> Schedule:
    """The schedule, its first `steps` steps scaled by 1/steps, 2/steps, ..., 1; 0 steps leave it as it is."""
    if steps < 0:
        raise ValueError(f"steps is {steps}; give 0 or more")
    return lambda step: schedule(step) * (min(1.0, (step + 1) / steps) if steps else 1.0)


def _cosine(rate: float, share: float) -> float:
    return rate * (1 + math.cos(math.pi * share)) / 2


def _check_length(name: str, value: int) -> None:
    if value < 1:
        raise ValueError(f"{name} is {value}; give 1 or more")
