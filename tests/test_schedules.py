"""The schedules against torch's own."""

import math

import pytest
import torch
from torch.optim.lr_scheduler import ConstantLR, CosineAnnealingLR, CosineAnnealingWarmRestarts, LinearLR, LRScheduler

from sia.schedules import calr, calwr, constant, cylr, warmup

RATE = 2e-4


def rates_of(scheduler: type[LRScheduler], steps: int, **arguments: float) -> list[float]:
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


@pytest.mark.parametrize(
    "schedule", [calr(RATE, 50), calwr(RATE, 4, 2), cylr(1e-6, RATE, 8), constant(RATE), warmup(calr(RATE, 50), 7)]
)
def test_a_schedule_is_a_function_of_the_step_alone(schedule) -> None:  # type: ignore[no-untyped-def]
    forward = [schedule(step) for step in range(50)]
    backward = [schedule(step) for step in reversed(range(50))]
    assert forward == backward[::-1]
    assert all(0 <= rate <= RATE and math.isfinite(rate) for rate in forward)


def test_cylr_climbs_for_half_its_period_and_falls_for_the_other() -> None:
    schedule = cylr(1e-6, 2e-4, 8)
    middle = (1e-6 + 2e-4) / 2
    assert [schedule(step) for step in (0, 2, 4, 6, 8)] == pytest.approx([1e-6, middle, 2e-4, middle, 1e-6])
    assert [schedule(step) for step in range(8, 16)] == pytest.approx([schedule(step) for step in range(8)])


def test_cylrs_falling_half_is_torchs_cosine_annealing() -> None:
    schedule = cylr(1e-6, RATE, 20)
    theirs = rates_of(CosineAnnealingLR, 10, T_max=10, eta_min=1e-6)
    assert [schedule(step) for step in range(10, 20)] == pytest.approx(theirs, rel=1e-9)


def test_a_constant_rate_is_constant() -> None:
    schedule = constant(RATE)
    assert [schedule(step) for step in range(50)] == rates_of(ConstantLR, 50, factor=1.0)


@pytest.mark.parametrize("steps", [1, 2, 10])
def test_warmup_is_torchs_linear_one(steps: int) -> None:
    schedule = warmup(constant(RATE), steps)
    theirs = rates_of(LinearLR, 30, start_factor=1 / steps, end_factor=1.0, total_iters=max(1, steps - 1))
    if steps == 1:
        theirs = [RATE] * 30
    assert [schedule(step) for step in range(30)] == pytest.approx(theirs, rel=1e-9)


def test_after_its_warmup_a_schedule_is_itself() -> None:
    bare, warmed = calwr(RATE, 10, 2), warmup(calwr(RATE, 10, 2), 5)
    assert [warmed(step) for step in range(4, 60)] == [bare(step) for step in range(4, 60)]
    assert [warmed(step) / bare(step) for step in range(4)] == pytest.approx([0.2, 0.4, 0.6, 0.8])
    assert warmup(bare, 0)(0) == RATE


@pytest.mark.parametrize(
    ("make", "fault"),
    [
        (lambda: calr(RATE, 0), "total_steps is 0"),
        (lambda: calwr(RATE, 0, 2), "first_cycle_steps is 0"),
        (lambda: calwr(RATE, 1, 0), "multiplier is 0"),
        (lambda: cylr(1e-6, 2e-4, 0), "period_steps is 0"),
        (lambda: cylr(2e-4, 1e-6, 4), "swap"),
        (lambda: warmup(constant(RATE), -1), "steps is -1"),
    ],
)
def test_a_length_that_cannot_be_is_refused(make, fault: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match=fault):
        make()
