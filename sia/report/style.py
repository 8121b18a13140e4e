"""How figures look: colours and marks that the colour-blind and a printer tell apart, a legend, PNG and inline SVG."""

import io
import re
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK = "#1b1b1f"
# Okabe and Ito's palette, without yellow, two of them darker, so that each stands out from white by 3 : 1; the last is
# ink, which is light in the dark.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#c56d9e", "#3d9bd1", "#c48700", INK)
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


Key = list[tuple[str, Look]]  # what a colour or a mark is


@dataclass(frozen=True)
class Drawn:
    """A figure, and what its colours and marks are: below it in a picture, beside it on a page."""

    figure: "Figure"
    key: Key


def key_of(looks: Mapping[str, Look], marks: Sequence[str], others: int = 0) -> Key:
    some = [(f"{others} others", {"color": INK, "alpha": 0.35, "linestyle": "-"})] * bool(others)
    return [*looks.items(), *some, *((mark, {"color": INK, **MARKS[mark]}) for mark in marks)]


def _legend(drawn: Drawn) -> None:
    """Below the panels; the figure grows by its lines."""
    from matplotlib.lines import Line2D

    figure = drawn.figure
    # No name is taken for a formula.
    names = [textwrap.fill(name, WIDEST).replace("$", r"\$") for name, _ in drawn.key]
    handles = [Line2D([], [], label=name, **look) for name, (_, look) in zip(names, drawn.key, strict=True)]
    widest = max(len(line) for name in names for line in name.splitlines())
    columns = max(1, int(figure.get_figwidth() * 11 / (widest + 7)))
    lines = sum(name.count("\n") + 1 for name in names) / columns + 1
    figure.set_figheight(figure.get_figheight() + 0.17 * lines)
    figure.legend(handles=handles, loc="outside lower center", ncols=columns, fontsize=9, frameon=False, labelcolor=INK)


def swatch(look: Look) -> str:
    """A line and its marker as an <svg> of 32 by 14 pixels, in the page's colours."""
    from matplotlib.markers import MarkerStyle

    colour, drawn = _of_page(look["color"]), ""
    dashes = {"--": "4 3", ":": "1.5 2.5", (0, (6, 2, 1, 2)): "6 2 1 2"}.get(look.get("linestyle", "-"), "")
    if look.get("linestyle", "-"):
        width = look.get("linewidth", 1.5)
        drawn += f'<path d="M1 7H31" stroke="{colour}" stroke-width="{width}" stroke-dasharray="{dashes}"/>'
    if mark := look.get("marker"):
        style, size = MarkerStyle(mark), look.get("markersize", 8)
        outline: Any = style.get_path().transformed(style.get_transform()).to_polygons()[0]
        corners = "L".join(f"{16 + size * x:.1f} {7 - size * y:.1f}" for x, y in outline)
        drawn += f'<path d="M{corners}Z" fill="{colour}"/>'
    opacity = look.get("alpha", 1)
    return f'<svg class="swatch" viewBox="0 0 32 14" aria-hidden="true" opacity="{opacity}">{drawn}</svg>'


def _of_page(colour: str) -> str:
    return "currentColor" if colour == INK else f"var(--c{COLOURS.index(colour) + 1})"


def _settle(figure: "Figure") -> None:
    """Lay it out, once: to save it would draw it a second time to that end."""
    if (engine := figure.get_layout_engine()) is not None:
        engine.execute(figure)
        figure.set_layout_engine("none")


def png(drawn: Drawn) -> bytes:
    stream = io.BytesIO()
    if drawn.key:
        _legend(drawn)
    _settle(drawn.figure)
    drawn.figure.savefig(stream, format="png", dpi=130)
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
    for colour in COLOURS:
        body = body.replace(colour, _of_page(colour))
    body = body.replace("#ffffff", "var(--paper)")
    return f'<svg class="figure" viewBox="{box}" role="img" aria-label="{escape(label)}">{body}'
