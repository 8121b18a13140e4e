"""A study's report as one HTML page that needs nothing beside it, and its tables as LaTeX."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from sia.config import flatten
from sia.report import tables
from sia.report.corpus import CorpusFacts
from sia.report.groups import Group, grouped
from sia.report.paper import beside
from sia.report.settings import differing, stages_text, text
from sia.report.style import inline_svg
from sia.report.summary import RunSummary

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LATEX: dict[str, str | int | None] = {
    **{letter: f"\\{letter}" for letter in "&%$#_{}"},
    **{"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"},
    **{"→": r"$\to$", "±": r"$\pm$", "×": r"$\times$", "–": "--", "≤": r"$\leq$", "<": r"$<$", ">": r"$>$"},
}
ROWS_OF_A_PAGE = 25  # of which each may be folded
LONGEST_CELL = 36
MANY_VALUES = 16
TOLD = (tables.duration, "{:.3g}".format, "{:.2g}".format)


def environment() -> Environment:
    made = Environment(
        loader=ChoiceLoader([PackageLoader("sia.report"), PackageLoader("sia.gallery")]),
        autoescape=lambda name: not str(name).endswith(".tex"),
        undefined=StrictUndefined,
        trim_blocks=True,
    )
    made.filters["tex"] = latex_escaped
    return made


def latex_escaped(value: object) -> str:
    return str(value).translate(str.maketrans(LATEX))


def latex(rows: list[tables.Row]) -> str:
    """A tabular for `booktabs`, what all rows have in common above it; of more rows than a page has, several."""
    rows, common = tables.narrowed(rows)
    columns = [_column([str(row[key]) for row in rows]) for key in rows[0]]
    parts = [rows[begin : begin + ROWS_OF_A_PAGE] for begin in range(0, len(rows), ROWS_OF_A_PAGE)]
    return environment().get_template("table.tex").render(parts=parts, columns=columns, common=common)


def _column(cells: Sequence[str]) -> str:
    """To the right where its cells are numbers; of some width where they are long, so that they are folded."""
    if max(map(len, cells)) > LONGEST_CELL:
        return r"p{0.45\linewidth}"
    return "r" if cells[0][:1].isdigit() else "l"


def svgs(name: str, title: str, figures: dict[str, "Figure"]) -> list[Markup]:
    """A figure's panels, one of each direction, for a page."""
    return [Markup(inline_svg(drawn, f"{name}-{key}", f"{title}, {key}")) for key, drawn in figures.items()]


@dataclass(frozen=True)
class Opening:
    """What a report begins with, and the lines on runs that are left out of it."""

    study: str
    question: str
    finding: str
    states: str
    notes: list[str]
    damaged: list[str]


def page(opening: Opening, summaries: list[RunSummary], corpus: CorpusFacts, gallery: Any = None, **told: Any) -> str:
    """The page; `told` are its notes, and its figures with their Markup."""
    groups = grouped(summaries)
    context = {
        "varied": varied(groups),
        "held": held(groups),
        "corpus": corpus,
        "pairs": list(dict.fromkeys(run.pair for run in summaries)),
        "table1": (tables.table1_beside(summaries), ""),
        "table2": tables.narrowed(tables.table2(summaries)),
        "beside": (beside(summaries), ""),
        "costs": costs(groups),
        "results": tables.narrowed(tables.results_table(summaries)),
        "course": tables.narrowed(tables.course_table(summaries)),
        "commits": sorted({run.commit[:8] for run in summaries if run.commit}),
        "gallery": gallery,
    }
    return environment().get_template("report.html").render(**vars(opening), **context, **told)


def varied(groups: Sequence[Group]) -> dict[str, str]:
    """The values of each setting in which configurations differ, by its dotted key; and the seeds, of several."""
    values: dict[str, list[Any]] = {}
    for one in differing([group.runs[0].configuration for group in groups]):
        for key, value in one.items():
            values.setdefault(key, []).append(value)
    seeds = [run.seed for group in groups for run in group.runs]
    values |= {"training.seed": seeds} if len({*seeds}) > 1 else {}
    return {key: _values(many) for key, many in values.items()}


def _values(many: list[Any]) -> str:
    """'32 · 64'; numbers in their order, and of many the first and the last."""
    numbers = all(isinstance(value, (int, float)) for value in many)
    told = list(dict.fromkeys(map(text, sorted(many) if numbers else many)))
    return " · ".join(told) if len(told) <= MANY_VALUES else f"{len(told)} values, {told[0]} to {told[-1]}"


def held(groups: Sequence[Group]) -> dict[str, str]:
    """Every other setting, with the one value that it had."""
    one, different = groups[0].runs[0].configuration, varied(groups)
    values = flatten(one.model_dump(mode="json", exclude={"runtime", "stages"}) | {"stages": stages_text(one)})
    values.pop("data.folder")
    stages_vary = any(key.startswith("stages") for key in different)
    return {
        key: text(value)
        for key, value in values.items()
        if key not in different and not (key == "stages" and stages_vary) and value is not None
    }


def costs(groups: Sequence[Group]) -> list[dict[str, Any]]:
    """Time, pairs a second and memory of a run of each configuration, in words and as a share of the most."""
    found = [
        (
            _mean([run.seconds for run in group.finished]),
            _mean([run.pairs_per_second for run in group.runs]),
            _mean([run.peak_memory_gb for run in group.runs]),
        )
        for group in groups
    ]
    most = [max((value or 0.0 for value in values), default=0.0) or 1.0 for values in zip(*found, strict=True)]
    return [
        {
            "label": group.label,
            "cells": [
                None if value is None else (told(value), round(100 * value / top))
                for value, top, told in zip(values, most, TOLD, strict=True)
            ],
            "by": ", ".join(sorted({run.trained_by for run in group.finished})),
        }
        for group, values in zip(groups, found, strict=True)
        if any(value is not None for value in values)
    ]


def costs_table(groups: Sequence[Group]) -> list[tables.Row]:
    """The same for Markdown."""
    keys = ("Training time", "Pairs a second", "Peak memory, GB")
    return [
        {
            "Configuration": row["label"],
            **{key: cell[0] if cell else tables.NONE_YET for key, cell in zip(keys, row["cells"], strict=True)},
            "Ranks × device": row["by"],
        }
        for row in costs(groups)
    ]


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
