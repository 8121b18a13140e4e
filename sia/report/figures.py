"""The report's figures as PNG: recall by epoch (the paper's figure 2), and recall against the speech encoder's size."""

import io
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from sia.report.groups import Group, Spread, grouped
from sia.report.summary import RunSummary
from sia.run.selection import selection_value

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DIRECTIONS = {"speech_to_image": "speech → image", "image_to_speech": "image → speech"}
# Okabe and Ito's palette: told apart by colour-blind readers too.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
OTHERS = "#999999"
CHOSEN_ON_TEST = "chosen on test"
EPOCHS_LABELS = {
    ("validation",): "R@10 on the validation split (%)",
    ("test",): "R@10 on the test split, which chose the best epoch (%)",
    ("test", "validation"): "R@10 on the split that chose the best epoch (%)",
}
MANY_CYCLES = 12
FEW_EPOCHS = 40
MANY_GROUPS = 20  # that a legend can name
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
    line; a faint grey line the start of a new cycle of the learning rate. Of many configurations the best are named,
    the others grey.
    """
    return _png(curves(summaries)) if any(run.epoch_rows for run in summaries) else None


def curves(summaries: list[RunSummary]) -> "Figure":
    """The figure of `recall_by_epoch`, of runs that have trained an epoch."""
    from matplotlib.ticker import MaxNLocator

    groups = [group for group in grouped(summaries) if any(run.epoch_rows for run in group.runs)]
    named, others = _best_of(groups)
    cycles, colours = cycles_drawn(summaries), _colours(len(named))
    figure, panels = _subplots(2, (11, 4.8))
    for axes, direction in zip(panels, DIRECTIONS, strict=True):
        for after_epoch in cycles:
            axes.axvline(after_epoch + 0.5, color="grey", linewidth=0.8, alpha=0.35, zorder=0)
        _draw_others(axes, [run for group in others for run in group.runs], direction)
        for group, colour in zip(named, colours, strict=True):
            for run in group.runs:
                _draw_run(axes, run, f"{run.selected_on}/{direction}/R_at_10", colour)
        axes.set(title=DIRECTIONS[direction], xlabel="epoch", ylim=(0, None), xlim=(0.5, None))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    panels[0].set_ylabel(EPOCHS_LABELS[splits_of(groups)])
    names = [label_of(group, groups) for group in named]
    if others:
        names, colours = [*names, f"{len(others)} others"], [*colours, OTHERS]
    _legend(figure, names, colours, bool(cycles))
    return figure


def _best_of(groups: list[Group]) -> tuple[list[Group], list[Group]]:
    """The MANY_GROUPS with the best epochs, and the others, both in their order."""
    peaks = [max(selection_value(row) for run in group.runs for row in run.epoch_rows) for group in groups]
    best = set(sorted(range(len(groups)), key=lambda number: -peaks[number])[:MANY_GROUPS])
    named = [group for number, group in enumerate(groups) if number in best]
    return named, [group for number, group in enumerate(groups) if number not in best]


def _draw_others(axes: "Axes", runs: Sequence[RunSummary], direction: str) -> None:
    from matplotlib.collections import LineCollection

    lines = [[*stage.items()] for run in runs for stage in segments(run, f"{run.selected_on}/{direction}/R_at_10")]
    axes.add_collection(LineCollection(lines, colors=OTHERS, linewidths=0.8, alpha=0.4, zorder=1))


def segments(run: RunSummary, key: str) -> Iterator[dict[int, float]]:
    """The values (percent) of each stage by epoch: a stage does not go on where the one before it ended."""
    for stage in sorted({row["stage"] for row in run.epoch_rows}):
        if values := {row["epoch"]: row[key] * 100 for row in run.epoch_rows if row["stage"] == stage and key in row}:
            yield values


def _draw_run(axes: "Axes", run: RunSummary, key: str, colour: Any) -> None:
    value_of = {epoch: value for stage in segments(run, key) for epoch, value in stage.items()}
    dot = 3 if len(value_of) < FEW_EPOCHS else 0
    for stage in segments(run, key):
        axes.plot([*stage], [*stage.values()], color=colour, linewidth=1.3, alpha=0.8, marker="o", markersize=dot)
    for restart in run.restarts:
        begin, end = restart.from_epoch, restart.after_epoch + 1
        if begin is None:
            continue
        axes.axvline(restart.after_epoch + 0.5, color=colour, linestyle="--", linewidth=1, alpha=0.6)
        if begin in value_of and end in value_of:
            tied = [value_of[begin], value_of[end]]
            axes.plot([begin, end], tied, color=colour, linestyle=":", linewidth=1.2, alpha=0.9)
    if run.best_epoch in value_of:
        star: dict[str, Any] = {"marker": "*", "markersize": 14, "markeredgecolor": "white", "zorder": 5}
        axes.plot(run.best_epoch, value_of[run.best_epoch], color=colour, **star)


def cycles_drawn(summaries: list[RunSummary]) -> list[int]:
    """The epochs after which a new cycle of the rate is marked; none where there are too many."""
    starts = {restart.after_epoch for run in summaries for restart in run.restarts if restart.from_epoch is None}
    # A rate that restarts at every other epoch would turn the panel grey.
    return sorted(starts) if len(starts) <= MANY_CYCLES else []


def splits_of(groups: Sequence[Group]) -> tuple[str, ...]:
    """The splits that choose best epochs."""
    return tuple(sorted({group.runs[0].selected_on for group in groups}))


def label_of(group: Group, groups: Sequence[Group], label: str = "", before: str = ", ") -> str:
    """The group's name; in a figure of both splits, whether its epochs were chosen on test."""
    mixed = len(splits_of(groups)) > 1 and group.runs[0].selected_on == "test"
    return (label or group.label) + (before + CHOSEN_ON_TEST if mixed else "")


def _legend(figure: "Figure", names: list[str], colours: list[Any], cycles: bool) -> None:
    from matplotlib.lines import Line2D

    pairs = [Line2D([], [], color=colour, linewidth=2, label=name) for name, colour in zip(names, colours, strict=True)]
    looks: dict[str, dict[str, Any]] = {
        "best epoch": {"marker": "*", "linestyle": "", "markersize": 11},
        "new stage": {"linestyle": "--", "linewidth": 1},
        "from this checkpoint": {"linestyle": ":", "linewidth": 1.2},
        **({"new cycle of the rate": {"linewidth": 0.8, "alpha": 0.6}} if cycles else {}),
    }
    marks = [Line2D([], [], color="grey", label=label, **look) for label, look in looks.items()]
    figure.axes[-1].legend(handles=marks, loc="lower right", fontsize=8, framealpha=0.9)
    columns = 6 if max(map(len, names)) < 16 else 2
    figure.legend(handles=pairs, loc="outside lower center", ncols=columns, fontsize=9, frameon=False)


def recall_by_size(summaries: list[RunSummary]) -> bytes | None:
    """Test R@10 against speech parameters (log scale); None if none finished.

    Bars are the sample deviation over seeds, or the interval of a single one.
    """
    groups = [group for group in grouped(summaries) if group.finished]
    return _png(sizes(groups)) if groups else None


def sizes(groups: Sequence[Group]) -> "Figure":
    """The figure of `recall_by_size`, of groups that have finished runs."""
    figure, [axes] = _subplots(1, (7, 4.6))
    tops: dict[tuple[str, int], float] = {}
    for direction, colour, marker in zip(DIRECTIONS, COLOURS, "os", strict=False):
        for group in groups:
            if (spread := group.spread(f"{direction}/R_at_10")) is None:
                continue
            size, (below, above) = group.runs[0].speech_parameters, _bar(spread)
            look: dict[str, Any] = {"color": colour, "marker": marker, "linestyle": "", "capsize": 4, "markersize": 7}
            # No bar, rather than one of length zero, for a single seed without an interval.
            bar = [[below], [above]] if below or above else None
            name = DIRECTIONS[direction] if group is groups[0] else None
            axes.errorbar([size], [spread.mean * 100], yerr=bar, label=name, alpha=0.9, **look)
            place = label_of(group, groups, group.runs[0].pair, "\n"), size
            tops[place] = max(tops.get(place, 0.0), spread.mean * 100 + above)
    for (name, size), top in tops.items():
        axes.annotate(name, (size, top), xytext=(0, 8), textcoords="offset points", ha="center", fontsize=9)
    chosen = f",\nbest epoch {CHOSEN_ON_TEST}" if splits_of(groups) == ("test",) else ""
    axes.set(xscale="log", xlabel="trainable parameters of the speech encoder")
    axes.set_ylabel(f"R@10 on the test split{chosen} (%)")
    axes.margins(x=0.12, y=0.2)
    _tick_sizes(axes, sorted({group.runs[0].speech_parameters for group in groups}))
    axes.legend(loc="best", frameon=False)
    return figure


def _bar(spread: Spread) -> tuple[float, float]:
    """How far a bar reaches below and above the mean (percent): the seeds' deviation, or one seed's interval."""
    if spread.low is not None and spread.high is not None:
        return (spread.mean - spread.low) * 100, (spread.high - spread.mean) * 100
    return ((spread.deviation or 0.0) * 100,) * 2


def _tick_sizes(axes: "Axes", sizes: list[int]) -> None:
    from matplotlib.ticker import EngFormatter, NullLocator

    if len(sizes) <= MANY_SIZES:
        axes.set_xticks(sizes)
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(EngFormatter(places=1, sep=""))


def _subplots(panels: int, inches: tuple[float, float]) -> tuple["Figure", list["Axes"]]:
    # pyplot keeps every figure and asks for a display; a Figure of one's own does neither.
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=inches, layout="constrained")
        FigureCanvasAgg(figure)
        return figure, list(figure.subplots(1, panels, squeeze=False, sharey=True).flat)


def _colours(count: int) -> list[Any]:
    if count <= len(COLOURS):
        return list(COLOURS[:count])
    import matplotlib

    return [matplotlib.colormaps["turbo"](0.05 + 0.9 * index / (count - 1)) for index in range(count)]


def _png(figure: "Figure") -> bytes:
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=130)
    return stream.getvalue()
