"""How figures look: colours and marks that the colour-blind and a printer tell apart, a legend, PNG and inline SVG."""

import io
import re
import textwrap
from collections.abc import Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK = "#1b1b1f"
# Okabe and Ito's palette, without yellow; the last is ink, which is light in the dark.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", INK)
MARKERS = "os^DvPX"
Look = dict[str, Any]
GUIDE: Look = {"color": INK, "marker": ".", "alpha": 0.35, "linestyle": ""}
CHANCE_LINE: Look = {"color": INK, "linestyle": (0, (6, 2, 1, 2)), "linewidth": 1}
MARKS: dict[str, Look] = {
    "best epoch": {"marker": "*", "linestyle": "", "markersize": 11},
    "new stage": {"linestyle": "--", "linewidth": 1},
    "its checkpoint": {"linestyle": ":", "linewidth": 1.4},
    "new cycle": {"linewidth": 0.8, "alpha": 0.3},
    "Pareto front": {"linestyle": "--", "linewidth": 1, "alpha": 0.6},
    "equal": {"linestyle": "--", "linewidth": 1, "alpha": 0.6},
    "chance": CHANCE_LINE,
}
STYLE: Any = {
    "font.size": 10,
    "axes.titlesize": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.15,
    "axes.axisbelow": True,
    **dict.fromkeys(
        ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color", "grid.color"), INK
    ),
    "svg.fonttype": "path",  # no reader's font makes a label wider than its place
    "svg.hashsalt": "sia",
}
WIDEST = 52  # letters of a legend's line


def looks_of(things: Sequence[object]) -> list[Look]:
    """A colour and a marker for each, of at most so many as there are colours."""
    return [{"color": colour, "marker": marker} for _, colour, marker in zip(things, COLOURS, MARKERS, strict=False)]


def subplots(
    columns: int, inches: tuple[float, float], height_ratios: Sequence[int] = (1,)
) -> tuple["Figure", list[list["Axes"]]]:
    """A figure of so many columns, `inches` each, and their axes from top to bottom: they share x, and y by rows."""
    # pyplot keeps every figure and asks for a display; a Figure of one's own does neither.
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(inches[0] * columns, inches[1]), layout="constrained")
        FigureCanvasAgg(figure)
        ratios: dict[str, Any] = {"height_ratios": height_ratios, "sharex": "col", "sharey": "row", "squeeze": False}
        grid = figure.subplots(len(height_ratios), columns, **ratios)
        return figure, [list(grid[:, column]) for column in range(columns)]


def legend(figure: "Figure", looks: Mapping[str, Look], marks: Sequence[str], others: int = 0) -> None:
    """Below the panels: what each colour and each mark is. The figure grows by its lines."""
    from matplotlib.lines import Line2D

    handles = [Line2D([], [], label=_plain(name), **look) for name, look in looks.items()]
    handles += [Line2D([], [], label=f"{others} others", color=INK, alpha=0.35)] * bool(others)
    handles += [Line2D([], [], label=mark, **{"color": INK, **MARKS[mark]}) for mark in marks]
    widest = max(len(line) for handle in handles for line in str(handle.get_label()).splitlines())
    columns = max(1, int(figure.get_figwidth() * 11 / (widest + 7)))
    lines = sum(str(handle.get_label()).count("\n") + 1 for handle in handles) / columns + 1
    figure.set_figheight(figure.get_figheight() + 0.17 * lines)
    figure.legend(handles=handles, loc="outside lower center", ncols=columns, fontsize=9, frameon=False, labelcolor=INK)


def _settle(figure: "Figure") -> None:
    """Lay it out, once: to save it would draw it a second time to that end."""
    if (engine := figure.get_layout_engine()) is not None:
        engine.execute(figure)
        figure.set_layout_engine("none")


def _plain(name: str) -> str:
    """A name in lines, none of which is taken for a formula."""
    return textwrap.fill(name, WIDEST).replace("$", r"\$")


def png(figure: "Figure") -> bytes:
    stream = io.BytesIO()
    _settle(figure)
    figure.savefig(stream, format="png", dpi=130)
    return stream.getvalue()


def inline_svg(figure: "Figure", name: str, label: str) -> str:
    """An <svg> for a page, as wide as its place, in its ink and colours; `name` sets its ids apart."""
    import matplotlib

    stream = io.StringIO()
    with matplotlib.rc_context(STYLE):
        _settle(figure)
        figure.savefig(stream, format="svg", transparent=True, metadata={"Date": None})
    text = re.sub(r"<metadata>.*?</metadata>", "", stream.getvalue(), flags=re.DOTALL)
    box, body = re.search(r'viewBox="([^"]*)"', text)[1], text[text.index(">", text.index("<svg")) + 1 :]  # type: ignore[index]
    body = re.sub(r'(\bid="|url\(#|xlink:href="#)', rf"\g<1>{name}-", body).replace("xlink:href", "href")
    for number, colour in enumerate(COLOURS[:-1], start=1):
        body = body.replace(colour, f"var(--c{number})")
    body = body.replace(INK, "currentColor").replace("#ffffff", "var(--paper)")
    return f'<svg class="figure" viewBox="{box}" role="img" aria-label="{escape(label)}">{body}'
