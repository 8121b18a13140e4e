"""The report's figures of what was tested: R@10 on test, by an encoder's size, and trained against test.

Each is drawn of one direction, or of both beside each other, and is None where it would show less than two points.
"""

import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from sia.report.chance import Chances
from sia.report.finding import best_first
from sia.report.groups import Group, Spread, size_of
from sia.report.style import CHANCE_LINE, GUIDE, INK, Drawn, Look, key_of, looks_of, subplots
from sia.report.summary import RunSummary
from sia.run.selection import selection_value

if TYPE_CHECKING:
    from matplotlib.axes import Axes

DIRECTIONS = {"speech_to_image": "speech → image", "image_to_speech": "image → speech"}
MEASURES = [f"{direction}/R_at_10" for direction in DIRECTIONS]
CHOSEN_ON_TEST = "chosen on test"
MANY_GROUPS = 7  # that colours tell apart
MANY_ROWS = 20
WIDTH = 4.4  # inches of a panel


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
        peaks = {
            group.label: max((selection_value(row) for run in group.runs for row in run.epoch_rows), default=0.0)
            for group in self.groups
        }
        best = sorted(peaks, key=lambda label: -peaks[label])[:MANY_GROUPS]
        named = [label for label in peaks if label in best]
        return dict(zip(named, looks_of(named), strict=True))

    def drawn(self, figure: Any, groups: Sequence[Group], marks: Sequence[str]) -> Drawn:
        """With its key: the groups that are coloured, how many others there are, and the marks."""
        named = {label_of(group, groups): self.looks[group.label] for group in groups if group.label in self.looks}
        return Drawn(figure, key_of(named, marks, len(groups) - len(named)))


Draw = Callable[[Compared, Sequence[str]], "Drawn | None"]


def recall_on_test(study: Compared, directions: Sequence[str] = tuple(DIRECTIONS)) -> "Drawn | None":
    """Test R@10 of every configuration with its interval, the best one first: what the study was made for.

    Bars are the sample deviation over seeds, or the 95 % interval of a single one. Of many configurations the best.
    """
    groups = best_first(study.groups)[:MANY_ROWS]
    if len(groups) < 2:
        return None
    names = [textwrap.fill(label_of(group, groups), 22).replace("$", r"\$") for group in groups]
    lines = sum(name.count("\n") + 1.5 for name in names)
    figure, panels = subplots(len(directions), (WIDTH, 0.9 + 0.19 * lines))
    shown = [(spread, _bar(spread)) for group in groups for key in MEASURES if (spread := group.spread(key))]
    guessed = [share * 100 for share in study.chances.get("test", {}).values()]
    highest = max([spread.mean * 100 + above for spread, (_, above) in shown] + guessed)
    for (axes,), direction in zip(panels, directions, strict=True):
        for row, group in enumerate(groups):
            if (spread := group.spread(f"{direction}/R_at_10")) is None:
                continue
            below, above = _bar(spread)
            look = {"marker": "o", "color": INK, **study.looks.get(group.label, {})}
            axes.errorbar([spread.mean * 100], [row], xerr=[[below], [above]], markersize=8, elinewidth=2, **look)
            beside: dict[str, Any] = {"va": "center", "fontweight": "bold", "color": INK}
            axes.text(1.03, row, f"{spread.mean * 100:.1f}", transform=axes.get_yaxis_transform(), **beside)
        if "test" in study.chances:
            axes.axvline(study.chances["test"][direction] * 100, **CHANCE_LINE)
        axes.set(title=DIRECTIONS[direction], ylim=(len(groups) - 0.5, -0.5), xlabel="R@10 on test (%)")
        axes.set_xlim(0, min(103, max(highest * 1.05, 1)))
        axes.set_yticks(range(len(groups)), names)
        axes.grid(visible=False, axis="y")
        axes.tick_params(axis="y", length=0)
    return Drawn(figure, key_of({}, ["chance"] * ("test" in study.chances)))


def draw_chance(axes: "Axes", splits: Sequence[str], chances: Mapping[str, Chances], direction: str) -> None:
    for value in {chances[split][direction] * 100 for split in splits}:
        axes.axhline(value, **CHANCE_LINE)


def splits_of(groups: Sequence[Group]) -> tuple[str, ...]:
    """The splits that choose best epochs."""
    return tuple(sorted({group.runs[0].selected_on for group in groups}))


def label_of(group: Group, groups: Sequence[Group]) -> str:
    """The group's name; in a figure of both splits, whether its epochs were chosen on test."""
    mixed = len(splits_of(groups)) > 1 and group.runs[0].selected_on == "test"
    return group.label + (f", {CHOSEN_ON_TEST}" if mixed else "")


def recall_by_size(study: Compared, directions: Sequence[str] = tuple(DIRECTIONS)) -> "Drawn | None":
    """Test R@10 against the parameters of the branch that differs (log scale), with the Pareto front: no smaller pair
    does better.

    Bars are the sample deviation over seeds, or the interval of a single one. None for pairs of one size.
    """
    groups = [group for group in study.groups if group.finished]
    branch, sizes = size_of(groups)
    if len({*sizes.values()}) < 2:
        return None
    figure, panels = subplots(len(directions), (WIDTH, 3.4))
    for (axes,), direction in zip(panels, directions, strict=True):
        points = []
        for group in groups:
            if (spread := group.spread(f"{direction}/R_at_10")) is not None:
                size, value, bar = sizes[group.label], spread.mean * 100, _bar(spread)
                points.append((size, value))
                # No bar, rather than one of length zero, for a single seed without an interval.
                yerr = [[bar[0]], [bar[1]]] if any(bar) else None
                look = study.looks.get(group.label, GUIDE)
                axes.errorbar([size], [value], yerr=yerr, capsize=4, markersize=7, **look)
        axes.plot(*zip(*pareto(points), strict=True), **FRONT)
        draw_chance(axes, ["test"] if "test" in study.chances else [], study.chances, direction)
        axes.set(title=DIRECTIONS[direction], xscale="log", xlabel=f"{branch} parameters", ylim=(0, None))
        axes.margins(x=0.08)
        _tick_sizes(axes, sorted({*sizes.values()}))
    chosen = ",\nbest epoch chosen on test" if splits_of(groups) == ("test",) else ""
    panels[0][0].set_ylabel(f"R@10 on test{chosen} (%)")
    return study.drawn(figure, groups, ["Pareto front"] + ["chance"] * ("test" in study.chances))


FRONT: dict[str, Any] = {"color": INK, "linestyle": "--", "linewidth": 1, "alpha": 0.6, "zorder": 0}


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


def trained_and_test(study: Compared, directions: Sequence[str] = tuple(DIRECTIONS)) -> "Drawn | None":
    """R@10 of trained captions against that of the test split, a point a run: how far below the line, it overfits."""
    groups = [group for group in study.groups if any(_trained(run, "speech_to_image") for run in group.finished)]
    if sum(len(group.finished) for group in groups) < 2:
        return None
    figure, panels = subplots(len(directions), (WIDTH, 4.2))
    for (axes,), direction in zip(panels, directions, strict=True):
        for group in groups:
            look = {**study.looks.get(group.label, GUIDE), "linestyle": "", "markersize": 8}
            for run in group.finished:
                if (trained := _trained(run, direction)) is not None:
                    axes.plot(trained * 100, run.test[f"{direction}/R_at_10"] * 100, **look)
        axes.axline((0, 0), slope=1, **FRONT)
        draw_chance(axes, ["test"] if "test" in study.chances else [], study.chances, direction)
        axes.set(title=DIRECTIONS[direction], xlabel="R@10 on trained captions (%)", xlim=(0, 103), ylim=(0, 103))
    panels[0][0].set_ylabel("R@10 on test (%)")
    return study.drawn(figure, groups, ["equal"] + ["chance"] * ("test" in study.chances))


def _trained(run: RunSummary, direction: str) -> float | None:
    return run.epoch_rows[-1].get(f"train/{direction}/R_at_10") if run.epoch_rows else None
