"""Learning rate as a function of the step, from 0; a schedule has no state, so a resume cannot change it.

A new schedule of `stages[].schedule` is a class here: `name` is its key in the configuration, its fields are its
settings, `build` makes its function.
"""

import math
from collections.abc import Callable
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from sia.section import Kind

Positive = Annotated[int, Field(gt=0)]
Rate = Callable[[int], float]


class Schedule(Kind):
    """How the rate moves within a stage."""

    default: ClassVar[str] = "calwr"

    def build(self, rate: float, epochs: int, steps_an_epoch: int) -> Rate:
        """The rate by the step, of a stage of so many epochs that starts at `rate`."""
        raise NotImplementedError

    def restarts(self, epochs: int) -> list[int]:
        """The epochs of such a stage, but its last, after which the rate starts anew."""
        return []


class Calr(Schedule):
    """Cosine annealing from the rate to 0 over the stage (SGDR, Loshchilov and Hutter 2017, equation 5, one cycle)."""

    name: Literal["calr"] = "calr"

    def build(self, rate: float, epochs: int, steps_an_epoch: int) -> Rate:
        steps = epochs * steps_an_epoch
        return lambda step: _cosine(rate, min(step, steps) / steps)


class Calwr(Schedule):
    """Cosine annealing with warm restarts (SGDR)."""

    name: Literal["calwr"] = "calwr"
    first_cycle_epochs: Positive = 1
    multiplier: Positive = Field(2, description="each cycle is so many times as long as the one before")

    def build(self, rate: float, epochs: int, steps_an_epoch: int) -> Rate:
        def at(step: int) -> float:
            begin, length = 0, self.first_cycle_epochs * steps_an_epoch
            while step >= begin + length:
                begin, length = begin + length, length * self.multiplier
            return _cosine(rate, (step - begin) / length)

        return at

    def restarts(self, epochs: int) -> list[int]:
        """1, 3, 7, 15, 31, 63 for 127 epochs from cycles of 1, 2, 4, ..."""
        ends, length = [self.first_cycle_epochs], self.first_cycle_epochs
        while ends[-1] < epochs:
            length *= self.multiplier
            ends.append(ends[-1] + length)
        return [end for end in ends if end < epochs]


class Cylr(Schedule):
    """A cyclic rate: half a cosine up to the stage's rate, half a cosine down again, over and over.

    Smith 2017 ([31] of the paper) with the cosine of Merkx et al. 2019 ([17]), who took 1e-6, 2e-4 and four epochs.
    """

    name: Literal["cylr"] = "cylr"
    period_epochs: Positive = Field(4, description="epochs from the lowest rate to the highest and back")
    lowest_rate: Annotated[float, Field(ge=0)] = Field(1e-6, description="the rate that it starts and ends at")

    def build(self, rate: float, epochs: int, steps_an_epoch: int) -> Rate:
        low, period = min(self.lowest_rate, rate), self.period_epochs * steps_an_epoch
        return lambda step: low + (rate - low) * (1 - math.cos(2 * math.pi * step / period)) / 2


class Constant(Schedule):
    """The same rate at every step."""

    name: Literal["constant"] = "constant"

    def build(self, rate: float, epochs: int, steps_an_epoch: int) -> Rate:
        return lambda step: rate


def warmup(schedule: Rate, steps: int) -> Rate:
    """The schedule, its first `steps` steps scaled by 1/steps, 2/steps, ..., 1; 0 steps leave it as it is."""
    return lambda step: schedule(step) * (min(1.0, (step + 1) / steps) if steps else 1.0)


def _cosine(rate: float, share: float) -> float:
    return rate * (1 + math.cos(math.pi * share)) / 2
