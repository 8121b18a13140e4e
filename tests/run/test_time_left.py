"""How long a run and a study have to go, with numbers that are worked out by hand."""

import pytest

from sia.run.time_left import Left, study_seconds

OVER = Left(0.0, 10.0, False)


def test_a_run_needs_its_epochs_times_the_seconds_of_one() -> None:
    assert Left(2.5, 60.0, True).seconds == 150.0
    assert Left(2.5, None, True).seconds is None


@pytest.mark.parametrize(
    ("runs", "seconds"),
    [
        ([Left(5.0, 10.0, True)], 50.0),
        ([Left(5.0, 10.0, True), Left(3.0, 30.0, True)], 90.0),  # side by side
        ([Left(5.0, 10.0, True), Left(6.0, 10.0, False)], 110.0),  # one after the other
        # Two places, free after 20 and 50 s: the 40 s begin at 20, the 10 s at 50.
        ([Left(2.0, 10.0, True), Left(5.0, 10.0, True), Left(1.0, 10.0, False), Left(4.0, 10.0, False)], 60.0),
        # Of the one that waits nothing is known: its epochs take 20 s, as the other's and the finished one's do.
        ([Left(5.0, 30.0, True), Left(10.0, None, False), OVER], 150.0 + 200.0),
        ([Left(5.0, None, True)], None),
        ([Left(5.0, 10.0, False)], None),  # nothing is at work
        ([OVER], None),
        ([], None),
    ],
)
def test_a_study_ends_with_the_last_of_its_runs(runs: list[Left], seconds: float | None) -> None:
    assert study_seconds(runs) == seconds
