"""A study's report, in `reports/<study>/`: one page, the same as Markdown, tables as CSV and LaTeX, figures as PNG."""

import sys
from pathlib import Path
from typing import Any, NamedTuple

from markupsafe import Markup

from sia.atomic import write_atomically, write_text
from sia.errors import UserError
from sia.gallery.of_study import kept_gallery
from sia.report import figures, tables
from sia.report.by_epoch import recall_by_epoch
from sia.report.corpus import corpus_facts
from sia.report.finding import finding
from sia.report.groups import grouped
from sia.report.page import context, environment, latex
from sia.report.style import inline_svg, png, swatch
from sia.report.summary import RunSummary, summarise
from sia.run.folder import RunFolder, report_folder, runs_of, runs_root, studies, study_of
from sia.trackers.tracker import tracker_of

PAGE = "report.html"


class Shown(NamedTuple):
    """A figure of the report; its caption is in the templates' notes."""

    name: str
    title: str
    draw: figures.Draw


FIGURES = (
    Shown("recall_on_test", "R@10 on test", figures.recall_on_test),
    Shown("recall_by_epoch", "R@10 by epoch, and the rate", recall_by_epoch),
    Shown("recall_by_size", "R@10 by size", figures.recall_by_size),
    Shown("trained_and_test", "Trained against test", figures.trained_and_test),
)


def write_report(study: str, out: Path | None = None, gallery: Markup | None = None) -> Path:
    """Write the report of a study, unfinished runs included; the path of report.html.

    gallery: what single clips find, for the page; None: what the page has of it already, if its run is still the best.
    Raises UserError if the study has no run.
    """
    runs = runs_of(study)
    if not runs:
        known = ", ".join(studies()) or "none yet"
        raise UserError(f"{study}: no such study under {runs_root()}; there are: {known}")
    summaries, damaged = _summaries(runs)
    folder, corpus = out or report_folder(study), corpus_facts(summaries)
    write_text(folder / "table1.csv", tables.csv_text(tables.table1(summaries, thousands="")))
    write_text(folder / "table2.csv", tables.csv_text(tables.table2_records(summaries)))
    write_text(folder / "runs.csv", tables.csv_text(tables.runs_records(summaries)))
    write_text(folder / "table1.tex", latex(tables.table1_beside(summaries)))
    write_text(folder / "table2.tex", latex(tables.table2(summaries)))
    compared = figures.Compared(grouped(summaries), corpus.chances)
    found = finding(summaries, corpus.chances.get("test"))
    told = context(study, study_of(study), summaries, corpus, found, damaged)
    told["figures"] = [_page_figure(shown, compared) for shown in FIGURES if _write_figure(folder, shown, compared)]
    told["gallery"] = kept_gallery(folder / PAGE, runs) if gallery is None else gallery
    # Last, so that they never name a file that is not there yet.
    for name in ("report.md", PAGE):
        write_text(folder / name, environment().get_template(name).render(**told, **_addresses(study, runs)))
    return folder / PAGE


def _summaries(runs: list[RunFolder]) -> tuple[list[RunSummary], list[str]]:
    """Of the runs that can be read, and a line on each of the others. Raises UserError where none can."""
    summaries, lines = [], []
    for run in runs:
        try:
            summaries.append(summarise(run))
        except (UserError, OSError) as error:
            lines.append(f"{run.name}: {' '.join(str(error).split())}")
            print(f"left out of the report: {lines[-1]}", file=sys.stderr)
    if not summaries:
        raise UserError(f"{runs[0].path.parent}: none of its runs can be read")
    return summaries, lines


def _write_figure(folder: Path, shown: Shown, compared: figures.Compared) -> bool:
    """Whether there was anything to draw."""
    path, drawn = folder / f"{shown.name}.png", shown.draw(compared, tuple(figures.DIRECTIONS))
    if drawn is None:
        path.unlink(missing_ok=True)  # of an earlier report of other runs
        return False
    write_atomically(path, lambda stream: stream.write(png(drawn)))
    return True


def _page_figure(shown: Shown, compared: figures.Compared) -> dict[str, Any]:
    """A panel of each direction, and their one key."""
    drawn = {name: shown.draw(compared, [name]) for name in figures.DIRECTIONS}
    labels = {name: f"{shown.title}, {said}" for name, said in figures.DIRECTIONS.items()}
    return {
        "name": shown.name,
        "title": shown.title,
        "svgs": [
            Markup(inline_svg(one.figure, f"{shown.name}-{name}", labels[name])) for name, one in drawn.items() if one
        ],
        "key": [(label, Markup(swatch(look))) for one in [*drawn.values()][:1] if one for label, look in one.key],
    }


def _addresses(study: str, runs: list[RunFolder]) -> dict[str, Any]:
    """Where the tracker shows the study and each run, and what must be done before."""
    tracker = tracker_of(study)
    lines = tracker.how_to_open(runs)
    found = {
        "addresses": [line for line in lines if line.startswith("http")],
        "first": " ".join(line for line in lines if not line.startswith("http")),
    }
    pages = {run.name: page for run in runs if (page := tracker.page_of(run) or "").startswith("http")}
    return {"tracker": tracker.name, "links": found if found["addresses"] else None, "pages": pages}
