"""The report's figure 2: R@10 of every run by epoch, and the rate below it."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from sia.report.figures import DIRECTIONS, WIDTH, Compared, draw_chance, splits_of
from sia.report.groups import Group
from sia.report.style import INK, Drawn, Look, subplots
from sia.report.summary import RunSummary

if TYPE_CHECKING:
    from matplotlib.axes import Axes

EPOCHS_LABELS = {
    ("validation",): "R@10 on validation (%)",
    ("test",): "R@10 on test, which chose the best epoch (%)",
    ("test", "validation"): "R@10 on the split that chose (%)",
}
MANY_CYCLES = 12


def recall_by_epoch(study: Compared, directions: Sequence[str] = tuple(DIRECTIONS)) -> "Drawn | None":
    """R@10 of every run after every epoch (the paper's figure 2), on the split that chooses, and the rate below it.

    A star is a run's best epoch; a dashed line a stage that began from an earlier checkpoint, tied to it by a dotted
    one; a faint line the start of a new cycle of the rate. What several configurations share is drawn once, in ink. Of
    many configurations the best are coloured.
    """
    from matplotlib.ticker import MaxNLocator

    groups = [group for group in study.groups if any(run.epoch_rows for run in group.runs)]
    if max((run.epochs_trained for run in study.runs), default=0) < 2:
        return None
    cycles, looks, chances = cycles_drawn(study.runs), study.looks, study.chances
    named, others = [one for one in groups if one.label in looks], [one for one in groups if one.label not in looks]
    stages = _by_colour(named, looks, lambda run: [restart.after_epoch for restart in run.stages_begun])
    rates = _by_colour(named, looks, lambda run: [(*one.items(),) for one in segments(run, "train/learning_rate", 1)])
    figure, panels = subplots(len(directions), (WIDTH, 4.2), height_ratios=(3, 1))
    for (axes, rate), direction in zip(panels, directions, strict=True):
        for after_epoch in cycles:
            axes.axvline(after_epoch + 0.5, color=INK, linewidth=0.8, alpha=0.2, zorder=0)
        for after_epoch, colour in stages:
            axes.axvline(after_epoch + 0.5, color=colour, linestyle="--", linewidth=1, alpha=0.6)
        for curve, colour in rates:
            rate.plot(*zip(*curve, strict=True), color=colour, linewidth=1.2, alpha=0.8)
        _draw_others(axes, [run for group in others for run in group.runs], direction)
        stars = []
        for group in named:
            look = looks[group.label]
            for number, run in enumerate(group.runs):
                # Of several seeds one has the markers: all of them would hide the lines.
                drawn = {**look, "marker": ""} if number else look
                stars += _draw_run(axes, run, f"{run.selected_on}/{direction}/R_at_10", drawn)
        splits = [split for split in splits_of(groups) if split in chances]
        draw_chance(axes, splits, chances, direction)
        axes.set(title=DIRECTIONS[direction], ylim=(0, None), xlim=(0.5, None))
        _draw_stars(axes, stars)
        rate.set(xlabel="epoch", ylim=(0, None))
        rate.xaxis.set_major_locator(MaxNLocator(integer=True))
        rate.ticklabel_format(axis="y", style="sci", scilimits=(0, 0))
    panels[0][0].set_ylabel(EPOCHS_LABELS[splits_of(groups)])
    panels[0][1].set_ylabel("rate")
    restarted = any(run.stages_begun for run in study.runs)
    marks = ["best epoch"] + ["new stage", "its checkpoint"] * restarted + ["new cycle"] * bool(cycles)
    return study.drawn(figure, groups, marks + ["chance"] * bool(splits))


def _by_colour(
    groups: Sequence[Group], looks: Mapping[str, Look], things_of: Callable[[RunSummary], Iterable[Any]]
) -> list[tuple[Any, str]]:
    """Each thing of the groups' runs once, with the colour of its group, or ink where several groups have it."""
    owners: defaultdict[Any, set[str]] = defaultdict(set)
    for group in groups:
        for run in group.runs:
            for thing in things_of(run):
                owners[thing].add(group.label)
    return [(thing, looks[min(labels)]["color"] if len(labels) == 1 else INK) for thing, labels in owners.items()]


def _draw_others(axes: "Axes", runs: Sequence[RunSummary], direction: str) -> None:
    from matplotlib.collections import LineCollection

    lines = [[*stage.items()] for run in runs for stage in segments(run, f"{run.selected_on}/{direction}/R_at_10")]
    axes.add_collection(LineCollection(lines, colors=INK, linewidths=0.8, alpha=0.2, zorder=1))


def segments(run: RunSummary, key: str, scale: float = 100) -> Iterator[dict[int, float]]:
    """The values (percent) of each stage by epoch: a stage does not go on where the one before it ended."""
    for stage in sorted({row["stage"] for row in run.epoch_rows}):
        if values := {row["epoch"]: row[key] * scale for row in run.epoch_rows if row["stage"] == stage and key in row}:
            yield values


Star = tuple[int, float, str]  # epoch, percent, colour


def _draw_run(axes: "Axes", run: RunSummary, key: str, look: Look) -> list[Star]:
    """Its curve; the star of its best epoch is left to draw."""
    value_of = {epoch: value for stage in segments(run, key) for epoch, value in stage.items()}
    every = max(1, len(value_of) // 15)
    for stage in segments(run, key):
        axes.plot([*stage], [*stage.values()], **look, linewidth=1.3, alpha=0.8, markersize=4, markevery=every)
    for restart in run.stages_begun:
        begin, end = restart.from_epoch, restart.after_epoch + 1
        if begin in value_of and end in value_of:
            tied = [value_of[begin], value_of[end]]
            axes.plot([begin, end], tied, color=look["color"], linestyle=":", linewidth=1.4)
    best = run.best_epoch
    return [(best, value_of[best], look["color"])] if best in value_of else []


def _draw_stars(axes: "Axes", stars: list[Star]) -> None:
    """Beside each other where one would hide another."""
    from matplotlib.transforms import ScaledTranslation

    (left, right), (_, top) = axes.get_xlim(), axes.get_ylim()
    heaps: list[list[Star]] = []
    for star in sorted(stars, key=lambda one: -one[1]):
        hidden = ((heap, abs(heap[-1][0] - star[0]), abs(heap[-1][1] - star[1])) for heap in heaps)
        near = [heap for heap, epochs, percent in hidden if epochs < (right - left) / 25 and percent < top / 22]
        near[0].append(star) if near else heaps.append([star])
    shown: Any = {"marker": "*", "markersize": 12, "markeredgecolor": "white", "zorder": 5, "clip_on": False}
    for heap in heaps:
        for place, (epoch, value, colour) in enumerate(heap):
            apart = min(9, 40 / len(heap)) / 72  # inches
            aside = ScaledTranslation((place - (len(heap) - 1) / 2) * apart, 0, axes.figure.dpi_scale_trans)
            axes.plot(epoch, value, color=colour, transform=axes.transData + aside, **shown)


def cycles_drawn(summaries: list[RunSummary]) -> list[int]:
    """The epochs after which a new cycle of the rate is marked; none where there are too many."""
    starts = {restart.after_epoch for run in summaries for restart in run.restarts if restart.from_epoch is None}
    # A rate that restarts at every other epoch would turn the panel grey.
    return sorted(starts) if len(starts) <= MANY_CYCLES else []
