"""The schedules against torch's own."""

import math

import pytest
import torch
from torch.optim.lr_scheduler import ConstantLR, CosineAnnealingLR, CosineAnnealingWarmRestarts, LinearLR, LRScheduler

from sia.schedules import Calr, Calwr, Constant, Cylr, Rate, warmup

RATE, LOW = 2e-4, 1e-6


def rates_of(scheduler: type[LRScheduler], steps: int, **arguments: float) -> list[float]:
    optimizer = torch.optim.SGD([torch.zeros(1)], RATE)
    stepped, rates = scheduler(optimizer, **arguments), []
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        stepped.step()
    return rates


@pytest.mark.parametrize(("epochs", "steps"), [(1, 1), (2, 1), (1, 7), (20, 5)])
def test_calr_is_torchs_cosine_annealing(epochs: int, steps: int) -> None:
    schedule, count = Calr().build(RATE, epochs, steps), epochs * steps
    theirs = rates_of(CosineAnnealingLR, count, T_max=count)
    assert [schedule(step) for step in range(count)] == pytest.approx(theirs, rel=1e-9, abs=1e-15)
    assert schedule(0) == RATE and schedule(count) == schedule(count + 1) == 0.0


@pytest.mark.parametrize(("first", "multiplier", "steps"), [(1, 2, 1), (3, 1, 1), (2, 2, 2), (1, 3, 5)])
def test_calwr_is_torchs_warm_restarts(first: int, multiplier: int, steps: int) -> None:
    schedule = Calwr(first_cycle_epochs=first, multiplier=multiplier).build(RATE, 120, steps)
    theirs = rates_of(CosineAnnealingWarmRestarts, 120, T_0=first * steps, T_mult=multiplier)
    assert [schedule(step) for step in range(120)] == pytest.approx(theirs, rel=1e-9, abs=1e-15)


@pytest.mark.parametrize("steps", [1, 5])
def test_cycles_end_where_the_paper_says(steps: int) -> None:
    schedule = Calwr().build(RATE, 128, steps)
    ends = [1, 3, 7, 15, 31, 63, 127]
    assert [step for step in range(1, 130 * steps) if schedule(step) == RATE] == [end * steps for end in ends]
    assert Calwr().restarts(128) == ends and Calwr().restarts(127) == ends[:-1]
    assert Calr().restarts(128) == Cylr().restarts(128) == []


def test_cylr_climbs_by_a_cosine_for_half_its_period_and_falls_for_the_other() -> None:
    schedule = Cylr(period_epochs=4, lowest_rate=LOW).build(RATE, 8, 5)
    theirs = rates_of(CosineAnnealingLR, 10, T_max=10, eta_min=LOW)
    falling, rising = [schedule(step) for step in range(10, 20)], [schedule(step) for step in range(10, 0, -1)]
    assert falling == pytest.approx(theirs, rel=1e-9) and rising == pytest.approx(falling)
    assert [schedule(step) for step in range(20, 40)] == pytest.approx([schedule(step) for step in range(20)])
    assert Cylr(lowest_rate=1.0).build(RATE, 8, 5)(3) == RATE, "never above the stage's rate"


@pytest.mark.parametrize("steps", [1, 2, 10])
def test_warmup_is_torchs_linear_one_and_then_the_schedule_itself(steps: int) -> None:
    schedule = warmup(Constant().build(RATE, 1, 1), steps)
    start = {"start_factor": 1 / steps, "end_factor": 1.0, "total_iters": max(1, steps - 1)}
    theirs = rates_of(LinearLR, 30, **start) if steps > 1 else rates_of(ConstantLR, 30, factor=1.0)
    assert [schedule(step) for step in range(30)] == pytest.approx(theirs, rel=1e-9)
    bare = Calwr(first_cycle_epochs=10).build(RATE, 60, 1)
    warmed = warmup(bare, steps)
    assert [warmed(step) for step in range(steps - 1, 60)] == [bare(step) for step in range(steps - 1, 60)]
    assert warmup(bare, 0)(0) == RATE


@pytest.mark.parametrize("schedule", [kind().build(RATE, 10, 5) for kind in (Calr, Calwr, Cylr, Constant)])
def test_a_schedule_is_a_function_of_the_step_alone(schedule: Rate) -> None:
    for one in (schedule, warmup(schedule, 7)):
        forward, backward = [one(step) for step in range(50)], [one(step) for step in reversed(range(50))]
        assert forward == backward[::-1]
        assert all(0 <= rate <= RATE and math.isfinite(rate) for rate in forward)
