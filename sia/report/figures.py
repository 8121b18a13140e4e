"""The report's figures: R@10 by epoch over the rate, by the speech encoder's size, and trained against test.

Each is drawn of one direction, or of both beside each other, and is None where it would show less than two points.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from sia.report.chance import Chances
from sia.report.groups import Group, Spread
from sia.report.style import CHANCE_LINE, GUIDE, INK, Look, legend, looks_of, subplots
from sia.report.summary import RunSummary
from sia.run.selection import selection_value

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DIRECTIONS = {"speech_to_image": "speech → image", "image_to_speech": "image → speech"}
CHOSEN_ON_TEST = "chosen on test"
EPOCHS_LABELS = {
    ("validation",): "R@10 on validation (%)",
    ("test",): "R@10 on test, which chose the best epoch (%)",
    ("test", "validation"): "R@10 on the split that chose (%)",
}
MANY_CYCLES = 12
FEW_EPOCHS = 40
MANY_GROUPS = 7  # that colours tell apart


@dataclass(frozen=True)
class Compared:
    """The configurations of a study, what guessing reaches on each split, and how figures show them."""

    groups: list[Group]
    chances: Mapping[str, Chances]

    @cached_property
    def runs(self) -> list[RunSummary]:
        return [run for group in self.groups for run in group.runs]

    @cached_property
    def looks(self) -> dict[str, Look]:
        """Those of the MANY_GROUPS with the best epochs, by their labels: the same in every figure."""
        peaks = {group.label: max(map(_peak, group.runs)) for group in self.groups}
        best = sorted(peaks, key=lambda label: -peaks[label])[:MANY_GROUPS]
        named = [label for label in peaks if label in best]
        return dict(zip(named, looks_of(named), strict=True))


def _peak(run: RunSummary) -> float:
    return max(map(selection_value, run.epoch_rows), default=0.0)


Draw = Callable[[Compared, Sequence[str]], "Figure | None"]


def recall_by_epoch(study: Compared, directions: Sequence[str] = tuple(DIRECTIONS)) -> "Figure | None":
    """R@10 of every run after every epoch (the paper's figure 2), on the split that chooses, and the rate below it.

    A star is a run's best epoch; a dashed line a stage that began from an earlier checkpoint, tied to it by a dotted
    one; a faint line the start of a new cycle of the rate. Of many configurations the best are coloured.
    """
    from matplotlib.ticker import MaxNLocator

    groups = [group for group in study.groups if any(run.epoch_rows for run in group.runs)]
    if max((run.epochs_trained for run in study.runs), default=0) < 2:
        return None
    cycles, looks, chances = cycles_drawn(study.runs), study.looks, study.chances
    named, others = [one for one in groups if one.label in looks], [one for one in groups if one.label not in looks]
    figure, panels = subplots(len(directions), (4.9, 4.2), height_ratios=(3, 1))
    for (axes, rate), direction in zip(panels, directions, strict=True):
        for after_epoch in cycles:
            axes.axvline(after_epoch + 0.5, color=INK, linewidth=0.8, alpha=0.2, zorder=0)
        _draw_others(axes, [run for group in others for run in group.runs], direction)
        for group in named:
            look = looks[group.label]
            for number, run in enumerate(group.runs):
                # Of several seeds one has the markers: all of them would hide the lines.
                drawn = {**look, "marker": ""} if number else look
                _draw_run(axes, run, f"{run.selected_on}/{direction}/R_at_10", drawn)
                _draw_rate(rate, run, look)
        _draw_chance(axes, [split for split in splits_of(groups) if split in chances], chances, direction)
        axes.set(title=DIRECTIONS[direction], ylim=(0, None), xlim=(0.5, None))
        rate.set(xlabel="epoch", ylim=(0, None))
        rate.xaxis.set_major_locator(MaxNLocator(integer=True))
        rate.ticklabel_format(axis="y", style="sci", scilimits=(0, 0))
    panels[0][0].set_ylabel(EPOCHS_LABELS[splits_of(groups)])
    panels[0][1].set_ylabel("rate")
    marks = ["best epoch"] + ["new stage", "its checkpoint"] * _restarted(study.runs) + ["new cycle"] * bool(cycles)
    marks += ["chance"] * any(split in chances for split in splits_of(groups))
    _name(figure, groups, looks, marks)
    return figure


def _name(figure: "Figure", groups: Sequence[Group], looks: Mapping[str, Look], marks: Sequence[str]) -> None:
    """The legend: the groups that are coloured, how many others there are, and the marks."""
    named = {label_of(group, groups): looks[group.label] for group in groups if group.label in looks}
    legend(figure, named, marks, len(groups) - len(named))


def _restarted(summaries: list[RunSummary]) -> bool:
    return any(restart.from_epoch is not None for run in summaries for restart in run.restarts)


def _draw_others(axes: "Axes", runs: Sequence[RunSummary], direction: str) -> None:
    from matplotlib.collections import LineCollection

    lines = [[*stage.items()] for run in runs for stage in segments(run, f"{run.selected_on}/{direction}/R_at_10")]
    axes.add_collection(LineCollection(lines, colors=INK, linewidths=0.8, alpha=0.2, zorder=1))


def segments(run: RunSummary, key: str, scale: float = 100) -> Iterator[dict[int, float]]:
    """The values (percent) of each stage by epoch: a stage does not go on where the one before it ended."""
    for stage in sorted({row["stage"] for row in run.epoch_rows}):
        if values := {row["epoch"]: row[key] * scale for row in run.epoch_rows if row["stage"] == stage and key in row}:
            yield values


def _draw_run(axes: "Axes", run: RunSummary, key: str, look: Look) -> None:
    value_of = {epoch: value for stage in segments(run, key) for epoch, value in stage.items()}
    every = max(1, len(value_of) // 15)
    for stage in segments(run, key):
        axes.plot([*stage], [*stage.values()], **look, linewidth=1.3, alpha=0.8, markersize=4, markevery=every)
    for restart in run.restarts:
        begin, end = restart.from_epoch, restart.after_epoch + 1
        if begin is None:
            continue
        axes.axvline(restart.after_epoch + 0.5, color=look["color"], linestyle="--", linewidth=1, alpha=0.6)
        if begin in value_of and end in value_of:
            tied = [value_of[begin], value_of[end]]
            axes.plot([begin, end], tied, color=look["color"], linestyle=":", linewidth=1.4)
    if run.best_epoch in value_of:
        star: dict[str, Any] = {"marker": "*", "markersize": 13, "markeredgecolor": "white", "zorder": 5}
        axes.plot(run.best_epoch, value_of[run.best_epoch], color=look["color"], **star)


def _draw_rate(axes: "Axes", run: RunSummary, look: Look) -> None:
    for stage in segments(run, "train/learning_rate", 1):
        axes.plot([*stage], [*stage.values()], color=look["color"], linewidth=1.1, alpha=0.8)


def _draw_chance(axes: "Axes", splits: Sequence[str], chances: Mapping[str, Chances], direction: str) -> None:
    for value in {chances[split][direction] * 100 for split in splits}:
        axes.axhline(value, **CHANCE_LINE)


def cycles_drawn(summaries: list[RunSummary]) -> list[int]:
    """The epochs after which a new cycle of the rate is marked; none where there are too many."""
    starts = {restart.after_epoch for run in summaries for restart in run.restarts if restart.from_epoch is None}
    # A rate that restarts at every other epoch would turn the panel grey.
    return sorted(starts) if len(starts) <= MANY_CYCLES else []


def splits_of(groups: Sequence[Group]) -> tuple[str, ...]:
    """The splits that choose best epochs."""
    return tuple(sorted({group.runs[0].selected_on for group in groups}))


def label_of(group: Group, groups: Sequence[Group]) -> str:
    """The group's name; in a figure of both splits, whether its epochs were chosen on test."""
    mixed = len(splits_of(groups)) > 1 and group.runs[0].selected_on == "test"
    return group.label + (f", {CHOSEN_ON_TEST}" if mixed else "")


def recall_by_size(study: Compared, directions: Sequence[str] = tuple(DIRECTIONS)) -> "Figure | None":
    """Test R@10 against speech parameters (log scale), with the Pareto front: no smaller pair does better.

    Bars are the sample deviation over seeds, or the interval of a single one. None for pairs of one size.
    """
    groups = [group for group in study.groups if group.finished]
    if len({_size(group) for group in groups}) < 2:
        return None
    looks, chances = study.looks, study.chances
    figure, panels = subplots(len(directions), (4.9, 3.6))
    for (axes,), direction in zip(panels, directions, strict=True):
        measure = f"{direction}/R_at_10"
        for group in groups:
            if (spread := group.spread(measure)) is not None:
                below, above = _bar(spread)
                # No bar, rather than one of length zero, for a single seed without an interval.
                bar = [[below], [above]] if below or above else None
                axes.errorbar(
                    [_size(group)],
                    [spread.mean * 100],
                    yerr=bar,
                    capsize=4,
                    markersize=7,
                    **looks.get(group.label, GUIDE),
                )
        front = pareto([(_size(group), spread.mean * 100) for group in groups if (spread := group.spread(measure))])
        axes.plot(*zip(*front, strict=True), **FRONT)
        _draw_chance(axes, ["test"] if "test" in chances else [], chances, direction)
        axes.set(title=DIRECTIONS[direction], xscale="log", xlabel="speech parameters", ylim=(0, None))
        axes.margins(x=0.08)
        _tick_sizes(axes, sorted({_size(group) for group in groups}))
    chosen = ",\nbest epoch chosen on test" if splits_of(groups) == ("test",) else ""
    panels[0][0].set_ylabel(f"R@10 on test{chosen} (%)")
    _name(figure, groups, looks, ["Pareto front"] + ["chance"] * ("test" in chances))
    return figure


FRONT: dict[str, Any] = {"color": INK, "linestyle": "--", "linewidth": 1, "alpha": 0.6, "zorder": 0}


def _size(group: Group) -> int:
    return group.runs[0].speech_parameters


def pareto(points: Sequence[tuple[int, float]]) -> list[tuple[int, float]]:
    """Of (size, recall), those that nothing smaller, and nothing of their size, beats; by size."""
    front: list[tuple[int, float]] = []
    for size, value in sorted(points, key=lambda point: (point[0], -point[1])):
        if not front or value > front[-1][1]:
            front.append((size, value))
    return front


def _bar(spread: Spread) -> tuple[float, float]:
    """How far a bar reaches below and above the mean (percent): the seeds' deviation, or one seed's interval."""
    if spread.low is not None and spread.high is not None:
        # By rounding, a bound may lie on the wrong side of a mean that it equals.
        return max(0.0, spread.mean - spread.low) * 100, max(0.0, spread.high - spread.mean) * 100
    return ((spread.deviation or 0.0) * 100,) * 2


def _tick_sizes(axes: "Axes", sizes: list[int]) -> None:
    """A tick at each size that stands apart from the one before it."""
    from matplotlib.ticker import EngFormatter, NullLocator

    apart = (sizes[-1] / sizes[0]) ** 0.17
    kept = sizes[:1]
    for size in sizes[1:]:
        kept += [size] * (size / kept[-1] > apart)
    axes.set_xticks(kept)
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(EngFormatter(places=1, sep=""))


def trained_and_test(study: Compared, directions: Sequence[str] = tuple(DIRECTIONS)) -> "Figure | None":
    """R@10 of trained captions against that of the test split, a point a run: how far below the line, it overfits."""
    groups = [group for group in study.groups if any(_trained(run, "speech_to_image") for run in group.finished)]
    if sum(len(group.finished) for group in groups) < 2:
        return None
    looks, chances = study.looks, study.chances
    figure, panels = subplots(len(directions), (4.9, 4.4))
    for (axes,), direction in zip(panels, directions, strict=True):
        for group in groups:
            look = {**looks.get(group.label, GUIDE), "linestyle": "", "markersize": 8}
            for run in group.finished:
                if (trained := _trained(run, direction)) is not None:
                    axes.plot(trained * 100, run.test[f"{direction}/R_at_10"] * 100, **look)
        axes.axline((0, 0), slope=1, **FRONT)
        _draw_chance(axes, ["test"] if "test" in chances else [], chances, direction)
        axes.set(title=DIRECTIONS[direction], xlabel="R@10 on trained captions (%)", xlim=(0, 103), ylim=(0, 103))
    panels[0][0].set_ylabel("R@10 on test (%)")
    _name(figure, groups, looks, ["equal"] + ["chance"] * ("test" in chances))
    return figure


def _trained(run: RunSummary, direction: str) -> float | None:
    return run.epoch_rows[-1].get(f"train/{direction}/R_at_10") if run.epoch_rows else None
