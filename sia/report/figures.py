"""The report's figures as PNG: recall by epoch (the paper's figure 2), and recall against the speech encoder's size."""

import io
import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from sia.report.groups import Group, Spread, grouped
from sia.report.summary import RunSummary

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DIRECTIONS = {"speech_to_image": "speech → image", "image_to_speech": "image → speech"}
# Okabe and Ito's palette: told apart by colour-blind readers too.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
CHOSEN_ON_TEST = "chosen on test"
MIXED_LABEL = "R@10 on the split that chose the best epoch (%)"
MANY_CYCLES = 12
FEW_EPOCHS = 40
MANY_SIZES = 8
STYLE: Any = {
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "axes.axisbelow": True,
}


def recall_by_epoch(summaries: list[RunSummary]) -> bytes | None:
    """R@10 of every run after every epoch, a panel a direction; None if no epoch has been trained.

    It is of the split that chooses the best epoch; the axis names it, and the legend where runs differ in it.
    A star is the run's best epoch; a dashed line a stage that began from an earlier checkpoint, tied to it by a dotted
    line; a faint grey line the start of a new cycle of the learning rate.
    """
    return _png(curves(summaries)) if any(run.epoch_rows for run in summaries) else None


def curves(summaries: list[RunSummary]) -> "Figure":
    """The figure of `recall_by_epoch`, of runs that have trained an epoch."""
    from matplotlib.ticker import MaxNLocator

    groups = [group for group in grouped(summaries) if any(run.epoch_rows for run in group.runs)]
    figure, panels = _subplots(1, 2, figsize=(11, 4.8), sharey=True)
    for axes, direction in zip(panels, DIRECTIONS, strict=True):
        for after_epoch in cycles_drawn(summaries):
            axes.axvline(after_epoch + 0.5, color="grey", linewidth=0.8, alpha=0.35, zorder=0)
        for group, colour in zip(groups, _colours(len(groups)), strict=True):
            for run in group.runs:
                _draw_run(axes, run, f"{run.selected_on}/{direction}/R_at_10", colour)
        axes.set(title=DIRECTIONS[direction], xlabel="epoch", ylim=(0, None), xlim=(0.5, None))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    panels[0].set_ylabel(epochs_label(groups))
    _legend(figure, groups, bool(cycles_drawn(summaries)))
    return figure


def segments(run: RunSummary, key: str) -> Iterator[tuple[list[int], list[float]]]:
    """The epochs and values (percent) of each stage: a stage does not go on where the one before it ended."""
    for stage in sorted({row["stage"] for row in run.epoch_rows}):
        rows = [row for row in run.epoch_rows if row["stage"] == stage and key in row]
        if rows:
            yield [row["epoch"] for row in rows], [row[key] * 100 for row in rows]


def _draw_run(axes: "Axes", run: RunSummary, key: str, colour: Any) -> None:
    value_of = {row["epoch"]: row[key] * 100 for row in run.epoch_rows if key in row}
    dot = 3 if len(value_of) < FEW_EPOCHS else 0
    for epochs, values in segments(run, key):
        axes.plot(epochs, values, color=colour, linewidth=1.3, alpha=0.8, marker="o", markersize=dot)
    for restart in run.restarts:
        begin, end = restart.from_epoch, restart.after_epoch + 1
        if begin is None:
            continue
        axes.axvline(restart.after_epoch + 0.5, color=colour, linestyle="--", linewidth=1, alpha=0.6)
        if begin in value_of and end in value_of:
            tied = [value_of[begin], value_of[end]]
            axes.plot([begin, end], tied, color=colour, linestyle=":", linewidth=1.2, alpha=0.9)
    if run.best_epoch is not None and run.best_epoch in value_of:
        best = value_of[run.best_epoch]
        axes.plot(run.best_epoch, best, "*", color=colour, markersize=14, markeredgecolor="white", zorder=5)


def cycles_drawn(summaries: list[RunSummary]) -> list[int]:
    """The epochs after which a new cycle of the rate is marked; none where there are too many."""
    starts = {restart.after_epoch for run in summaries for restart in run.restarts if restart.from_epoch is None}
    # A rate that restarts at every other epoch would turn the panel grey.
    return sorted(starts) if len(starts) <= MANY_CYCLES else []


def epochs_label(groups: Sequence[Group]) -> str:
    """What the curves are of: the split that chooses the best epoch."""
    splits = {group.runs[0].selected_on for group in groups}
    if splits == {"validation"}:
        return "R@10 on the validation split (%)"
    return "R@10 on the test split, which chose the best epoch (%)" if splits == {"test"} else MIXED_LABEL


def _protocol(group: Group, groups: Sequence[Group], before: str) -> str:
    """What a mixed figure adds to the name of a group whose epochs were chosen on test."""
    mixed = len({one.runs[0].selected_on for one in groups}) > 1
    return before + CHOSEN_ON_TEST if mixed and group.runs[0].selected_on == "test" else ""


def _legend(figure: "Figure", groups: Sequence[Group], cycles: bool) -> None:
    from matplotlib.lines import Line2D

    pairs = [
        Line2D([], [], color=colour, linewidth=2, label=group.label + _protocol(group, groups, ", "))
        for group, colour in zip(groups, _colours(len(groups)), strict=True)
    ]
    grey: dict[str, Any] = {"color": "grey"}
    marks = [
        Line2D([], [], **grey, marker="*", linestyle="", markersize=11, label="best epoch"),
        Line2D([], [], **grey, linestyle="--", linewidth=1, label="new stage"),
        Line2D([], [], **grey, linestyle=":", linewidth=1.2, label="from this checkpoint"),
    ]
    if cycles:
        marks.append(Line2D([], [], **grey, linewidth=0.8, alpha=0.6, label="new cycle of the rate"))
    figure.axes[-1].legend(handles=marks, loc="lower right", fontsize=8, framealpha=0.9)
    columns = 6 if max(len(str(pair.get_label())) for pair in pairs) < 16 else 2
    figure.legend(handles=pairs, loc="outside lower center", ncols=columns, fontsize=9, frameon=False)


def recall_by_size(summaries: list[RunSummary]) -> bytes | None:
    """Test R@10 against speech parameters (log scale); None if none finished.

    Bars are the sample deviation over seeds, or the interval of a single one.
    """
    groups = [group for group in grouped(summaries) if group.spread("speech_to_image/R_at_10")]
    if not groups:
        return None
    figure, [axes] = _subplots(1, 1, figsize=(7, 4.6))
    for direction, colour, marker in zip(DIRECTIONS, COLOURS, "os", strict=False):
        _draw_sizes(axes, groups, direction, colour, marker)
    _name_pairs(axes, groups)
    axes.set(xscale="log", xlabel="trainable parameters of the speech encoder", ylabel=sizes_label(groups))
    axes.margins(x=0.12, y=0.2)
    _tick_sizes(axes, sorted({group.runs[0].speech_parameters for group in groups}))
    axes.legend(loc="best", frameon=False)
    return _png(figure)


def sizes_label(groups: Sequence[Group]) -> str:
    chosen = {group.runs[0].selected_on for group in groups} == {"test"}
    return "R@10 on the test split" + (f",\nbest epoch {CHOSEN_ON_TEST}" if chosen else "") + " (%)"


def _draw_sizes(axes: "Axes", groups: Sequence[Group], direction: str, colour: str, marker: str) -> None:
    sizes, means, bars = [], [], []
    for group in groups:
        if spread := group.spread(f"{direction}/R_at_10"):
            sizes.append(group.runs[0].speech_parameters)
            means.append(spread.mean * 100)
            bars.append(_bar(spread))
    look: dict[str, Any] = {"color": colour, "marker": marker, "linestyle": "", "capsize": 4, "markersize": 7}
    axes.errorbar(sizes, means, yerr=list(zip(*bars, strict=True)), label=DIRECTIONS[direction], alpha=0.9, **look)


def _bar(spread: Spread) -> tuple[float, float]:
    """How far a bar reaches below and above the mean (percent): the seeds' deviation, or one seed's interval."""
    if spread.deviation is not None:
        return spread.deviation * 100, spread.deviation * 100
    # No bar, rather than one of length zero, for a single seed without an interval.
    low, high = spread.interval or (math.nan, math.nan)
    return (spread.mean - low) * 100, (high - spread.mean) * 100


def _tick_sizes(axes: "Axes", sizes: list[int]) -> None:
    from matplotlib.ticker import EngFormatter, NullLocator

    if len(sizes) <= MANY_SIZES:
        axes.set_xticks(sizes)
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(EngFormatter(places=1, sep=""))


def _name_pairs(axes: "Axes", groups: Sequence[Group]) -> None:
    tops: dict[tuple[str, int], float] = {}
    for group in groups:
        for direction in DIRECTIONS:
            if spread := group.spread(f"{direction}/R_at_10"):
                place = (group.runs[0].pair + _protocol(group, groups, "\n"), group.runs[0].speech_parameters)
                above = _bar(spread)[1]
                top = spread.mean * 100 + (0.0 if math.isnan(above) else above)
                tops[place] = max(tops.get(place, 0.0), top)
    for (pair, size), top in tops.items():
        axes.annotate(pair, (size, top), xytext=(0, 8), textcoords="offset points", ha="center", fontsize=9)


def _subplots(rows: int, columns: int, **options: Any) -> tuple["Figure", list["Axes"]]:
    # pyplot keeps every figure and asks for a display; a Figure of one's own does neither.
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=options.pop("figsize"), layout="constrained")
        FigureCanvasAgg(figure)
        return figure, list(figure.subplots(rows, columns, squeeze=False, **options).flat)


def _colours(count: int) -> list[Any]:
    if count <= len(COLOURS):
        return list(COLOURS[:count])
    import matplotlib

    return [matplotlib.colormaps["turbo"](0.05 + 0.9 * index / (count - 1)) for index in range(count)]


def _png(figure: "Figure") -> bytes:
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=130)
    return stream.getvalue()
