"""The schedules against torch's own."""

import math

import pytest
import torch
from torch.optim.lr_scheduler import CosineAnnealingLR, CosineAnnealingWarmRestarts, LRScheduler

from sia.schedules import calr, calwr

RATE = 2e-4


def rates_of(scheduler: type[LRScheduler], steps: int, **arguments: int) -> list[float]:
    optimizer = torch.optim.SGD([torch.zeros(1)], RATE)
    stepped, rates = scheduler(optimizer, **arguments), []
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        stepped.step()
    return rates


@pytest.mark.parametrize("steps", [1, 2, 7, 100])
def test_calr_is_torchs_cosine_annealing(steps: int) -> None:
    schedule = calr(RATE, steps)
    ours = [schedule(step) for step in range(steps)]
    assert ours == pytest.approx(rates_of(CosineAnnealingLR, steps, T_max=steps), rel=1e-9, abs=1e-15)


def test_calr_falls_from_the_rate_to_nothing() -> None:
    schedule = calr(RATE, 10)
    assert schedule(0) == RATE
    assert schedule(5) == pytest.approx(RATE / 2)
    assert schedule(10) == schedule(11) == 0.0


@pytest.mark.parametrize(("first", "multiplier"), [(1, 2), (3, 1), (4, 2), (5, 3)])
def test_calwr_is_torchs_warm_restarts(first: int, multiplier: int) -> None:
    schedule = calwr(RATE, first, multiplier)
    theirs = rates_of(CosineAnnealingWarmRestarts, 120, T_0=first, T_mult=multiplier)
    assert [schedule(step) for step in range(120)] == pytest.approx(theirs, rel=1e-9, abs=1e-15)


@pytest.mark.parametrize("steps_an_epoch", [1, 5])
def test_cycles_end_where_the_paper_says(steps_an_epoch: int) -> None:
    schedule = calwr(RATE, steps_an_epoch, 2)
    restarts = [step for step in range(1, 130 * steps_an_epoch) if schedule(step) == RATE]
    assert restarts == [epochs * steps_an_epoch for epochs in (1, 3, 7, 15, 31, 63, 127)]


@pytest.mark.parametrize("schedule", [calr(RATE, 50), calwr(RATE, 4, 2)])
def test_a_schedule_is_a_function_of_the_step_alone(schedule) -> None:  # type: ignore[no-untyped-def]
    forward = [schedule(step) for step in range(50)]
    backward = [schedule(step) for step in reversed(range(50))]
    assert forward == backward[::-1]
    assert all(0 <= rate <= RATE and math.isfinite(rate) for rate in forward)
