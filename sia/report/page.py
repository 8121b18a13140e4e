"""What a study's report says, for its page and its Markdown; and its tables as LaTeX."""

import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment

from sia import __version__
from sia.config import flatten
from sia.gallery import page as gallery_page
from sia.report import paper, tables
from sia.report.corpus import CorpusFacts
from sia.report.differences import differing, stages_text, text
from sia.report.finding import R_AT_10, Finding, best_first
from sia.report.groups import Group, grouped
from sia.report.summary import RunSummary
from sia.run.records import Study

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
    made = gallery_page.environment(Path(__file__).parent / "templates")
    made.filters |= {"tex": latex_escaped, "numeric": tables.numeric, "markdown": tables.markdown}
    return made


def latex_escaped(value: object) -> str:
    return str(value).translate(str.maketrans(LATEX))


def latex(rows: list[tables.Row]) -> str:
    """A tabular for `booktabs`, what all rows have in common above it; of more rows than a page has, several."""
    rows, common = tables.narrowed(rows)
    right = tables.numeric(rows)
    columns = [
        # Long cells are folded.
        r"p{0.45\linewidth}" if max(len(str(row[key])) for row in rows) > LONGEST_CELL else "r" if key in right else "l"
        for key in rows[0]
    ]
    parts = [rows[begin : begin + ROWS_OF_A_PAGE] for begin in range(0, len(rows), ROWS_OF_A_PAGE)]
    return environment().get_template("table.tex").render(parts=parts, columns=columns, common=common)


def context(
    study: str, about: Study, summaries: list[RunSummary], corpus: CorpusFacts, found: Finding, damaged: list[str]
) -> dict[str, Any]:
    """The values of report.html and report.md, but for figures, gallery and addresses."""
    groups, chances = grouped(summaries), corpus.chances.get("test")
    table2, table2_common = tables.narrowed(tables.table2(summaries))
    results, results_common = tables.narrowed(tables.results_table(summaries))
    course, course_common = tables.narrowed(tables.course_table(summaries))
    return {
        "study": study,
        "question": about.question,
        "grid": about.grid,
        "finding": found,
        "remarks": _remarks(summaries, about.changes),
        "states": _states(summaries),
        "date": time.strftime("%-d %B %Y"),
        "version": __version__,
        "damaged": damaged,
        "tiles": tiles(found, corpus, len(best_first(groups))),
        "chance": " and ".join(dict.fromkeys(f"{value * 100:.3g} %" for value in (chances or {}).values())),
        "varied": varied(groups),
        "held": held(groups),
        "corpus": corpus,
        "table1": tables.table1_beside(summaries),
        "table2": table2,
        "table2_common": table2_common,
        "papers_table2": paper.table2(),
        "beside": paper.beside(summaries),
        "costs": costs(groups),
        "results": results,
        "results_common": results_common,
        "course": course,
        "course_common": course_common,
        "commits": sorted({run.commit[:8] for run in summaries if run.commit}),
    }


def _states(summaries: list[RunSummary]) -> str:
    states = Counter(run.state for run in summaries)
    told = ", ".join(f"{number} {state}" for state, number in sorted(states.items()))
    corpora = ", ".join(sorted({f"{run.corpus} {run.corpus_identity}".strip() for run in summaries}))
    runs = "1 run" if len(summaries) == 1 else f"{len(summaries)} runs"
    return f"{runs}: {told}. Corpus: {corpora}."


def _remarks(summaries: list[RunSummary], changes: list[str]) -> list[str]:
    controls = sum(run.experiment.data.shuffle_pairs for run in summaries)
    told = [f"The grid file's runs, changed by --set: {', '.join(changes)}."] if changes else []
    control = f"{controls} of the runs are controls, trained with wrong images (data.shuffle_pairs)."
    return told + [control] * bool(controls)


def tiles(found: Finding, corpus: CorpusFacts, num_finished: int) -> list[dict[str, str]]:
    """The numbers that a reader shall take home: what each is of, its value, its range."""
    if found.best is None:
        return []
    shown = [{"of": f"does best of {num_finished}" if num_finished > 1 else "is trained", "value": found.best.label}]
    of = ("of the captions find their image among ten", "of the images find a caption among ten")
    for measure, what in zip(R_AT_10, of, strict=True):
        value, _, bounds = tables.percent(found.best.spread(measure)).partition(" ")
        bounds = bounds.strip("[]").replace(",", " to")
        shown.append({"of": what, "value": f"{value} %", "range": bounds})
    if guesses := corpus.chances.get("test"):
        value = " / ".join(dict.fromkeys(f"{share * 100:.3g}" for share in guesses.values()))
        shown.append({"of": "is what guessing reaches", "value": f"{value} %"})
    return [{"range": "", **tile} for tile in shown]


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


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
