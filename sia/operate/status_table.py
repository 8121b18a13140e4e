"""The table of a study's runs, and how many of them are in which state. It loads no torch."""

from collections import Counter
from collections.abc import Sequence

from sia.fitted_table import FittedTable
from sia.operate.status import DAMAGED, RunView, StudyView
from sia.report.differences import PAIR, in_short
from sia.run.cost import in_words
from sia.run.folder import is_rehearsal
from sia.run.selection import protocol
from sia.run.state import State

SPLIT = "training.select_on"
# The first one first, as a terminal gets narrower.
LEFT_OUT = ("pairs/s", "loss", "heartbeat", "job", "stage", "i→s", "s→i", "left")
COUNTED = ("finished", "stopped", "failed", "lost", DAMAGED, "running", "pending", "waiting", "new")


def views_table(study: str, runs: Sequence[RunView], of: Sequence[RunView] = (), one_line: bool = False) -> FittedTable:
    """A row a run: state, stage, epoch, job, R@10 of the last epoch, the best mean of both directions (percent), and
    the settings in which it differs from other runs of the study.

    The title names the split that they are of; where runs differ in it, a column does. Runs that are under way tell
    how many seconds ago they gave a sign of life. of: the study's runs, where only some are shown. one_line: settings
    are left out rather than folded.
    """
    everyone = of or runs
    splits = {run.measured_on for run in everyone if run.measured_on}
    short = in_short([one.settings for one in everyone], (*PAIR, SPLIT))
    settings = {one.folder: ", ".join(told) for one, told in zip(everyone, short, strict=True)}
    shown_if = {
        "on": len(splits) > 1,
        "loss": any(run.step for run in everyone),
        "pairs/s": any(run.step for run in everyone),
        "left": any(run.seconds_left is not None for run in everyone),
        "heartbeat": any(run.heartbeat_seconds is not None for run in everyone),
        "settings": any(settings[run.folder] for run in runs),
    }
    rows = [{**status_cells(run), "settings": settings[run.folder]} for run in runs]
    wrap = () if one_line else ("settings",)
    return FittedTable(rows, _left_out(everyone), _titles(study, splits), wrap=wrap, shown_if=shown_if)


def _left_out(runs: Sequence[RunView]) -> tuple[str, ...]:
    """Settings go first, unless nothing else tells the runs apart."""
    pairs_differ = any(key in run.settings for run in runs for key in PAIR)
    return ("settings", *LEFT_OUT) if pairs_differ else (*LEFT_OUT[:5], "settings", *LEFT_OUT[5:])


def _titles(study: str, splits: set[str]) -> tuple[str, ...]:
    where = f" on {protocol(*splits)}" if len(splits) == 1 else ""
    what = f"{study}: R@10{where}"
    return f"{what} of the last epoch, and the best mean of both directions, in percent", f"{what}, percent"


def epoch_text(run: RunView) -> str:
    """For example `stage 1, epoch 3/12 +34%`."""
    return f"stage {run.stage}, epoch {_epoch(run)}"


def _epoch(run: RunView) -> str:
    under_way = "" if run.share_of_epoch is None else f" +{run.share_of_epoch:.0%}"
    return f"{run.epochs_begun}/{run.epochs}{under_way}"


def status_cells(run: RunView) -> dict[str, str]:
    known = run.state != DAMAGED
    return {
        "run": run.run,
        "state": run.state,
        "stage": f"{run.stage}/{run.stages}" if known else "",
        "epoch": _epoch(run) if known else "",
        "job": f"{run.job_id} {run.reason}".strip(),
        "s→i": percent(run.speech_to_image),
        "i→s": percent(run.image_to_speech),
        "best": percent(run.best),
        "on": run.measured_on,
        "loss": f"{run.step['loss']:.3f}" if run.step else "",
        "pairs/s": f"{run.step['pairs_per_second']:.3g}" if run.step else "",
        "left": "" if run.seconds_left is None else in_words(run.seconds_left / 3600),
        "heartbeat": "" if run.heartbeat_seconds is None else f"{run.heartbeat_seconds:.0f} s ago",
    }


def percent(share: float | None) -> str:
    return "" if share is None else f"{share * 100:.1f}"


def counts(runs: Sequence[RunView]) -> str:
    """For example `20 finished, 3 failed, 5 running, 12 pending`."""
    number = Counter(run.state for run in runs)
    return ", ".join(f"{number[state]} {state}" for state in COUNTED if number[state])


def way_line(study: StudyView) -> str:
    """For example `31 of 60 epochs, 830 pairs/s, about 3.2 min left`; empty where nothing is under way."""
    if is_rehearsal(study.study) or not any(run.state in (State.RUNNING, State.PENDING) for run in study.runs):
        return ""
    steps, begun = [run.step for run in study.runs if run.step], sum(run.epochs_begun for run in study.runs)
    told = [f"{begun} of {sum(run.epochs for run in study.runs)} epochs"]
    told += [f"{sum(step['pairs_per_second'] for step in steps):.3g} pairs/s"] if steps else []
    told += [] if (left := study.seconds_left) is None else [f"about {in_words(left / 3600)} left"]
    return ", ".join(told)


def count_line(runs: Sequence[RunView]) -> str:
    return f"{'1 run' if len(runs) == 1 else f'{len(runs)} runs'}: {counts(runs)}"
