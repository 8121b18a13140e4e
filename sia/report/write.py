"""A study's report, in `reports/<study>/`: one page, the same as Markdown, tables as CSV and LaTeX, figures as PNG."""

import sys
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

from sia.atomic import write_atomically, write_text
from sia.errors import UserError
from sia.report import figures, tables
from sia.report.corpus import corpus_facts
from sia.report.finding import finding
from sia.report.groups import grouped
from sia.report.page import Opening, costs_table, latex, page, svgs
from sia.report.paper import beside
from sia.report.style import png
from sia.report.summary import RunSummary, summarise
from sia.run.folder import RunFolder, report_folder, runs_of, runs_root, studies, study_of
from sia.trackers.tracker import tracker_of

PAGE = "report.html"


class Shown(NamedTuple):
    """A figure of the report."""

    name: str
    title: str
    caption: str
    draw: figures.Draw


def write_report(study: str, out: Path | None = None, gallery: Any = None) -> Path:
    """Write the report of a study, unfinished runs included; the path of report.html.

    gallery: what single clips find, for the page. Raises UserError if the study has no run.
    """
    runs = runs_of(study)
    if not runs:
        known = ", ".join(studies()) or "none yet"
        raise UserError(f"{study}: no such study under {runs_root()}; there are: {known}")
    summaries, damaged = _summaries(runs)
    folder, corpus, about = out or report_folder(study), corpus_facts(summaries), study_of(study)
    write_text(folder / "table1.csv", tables.csv_text(tables.table1(summaries, thousands="")))
    write_text(folder / "table2.csv", tables.csv_text(tables.table2_records(summaries)))
    write_text(folder / "runs.csv", tables.csv_text(tables.runs_records(summaries)))
    write_text(folder / "table1.tex", latex(tables.table1_beside(summaries)))
    write_text(folder / "table2.tex", latex(tables.table2(summaries)))
    compared = figures.Compared(grouped(summaries), corpus.chances)
    drawn = [shown for shown in FIGURES if _write_figure(folder, shown, compared)]
    found = finding(summaries, corpus.chances.get("test"))
    told = Opening(study, about.question, found, _states(summaries), _notes(summaries, about.changes), damaged)
    # Last, so that they never name a file that is not there yet.
    write_text(folder / "report.md", report_text(told, summaries, drawn))
    panels = [{"title": one.title, "caption": one.caption, "svgs": _panels(one, compared)} for one in drawn]
    tracker = tracker_of(study)
    pages = {run.name: address for run in runs if (address := tracker.page_of(run)) is not None}
    notes = {
        "tracker": tracker.name,
        "pages": pages,
        "table2_note": TABLE_2_NOTE,
        "paper_note": PAPER_NOTE,
        "runs_note": RUNS_NOTE,
        "grid": about.grid,
    }
    write_text(folder / PAGE, page(told, summaries, corpus, gallery, figures=panels, **notes))
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
    path, figure = folder / f"{shown.name}.png", shown.draw(compared, tuple(figures.DIRECTIONS))
    if figure is None:
        path.unlink(missing_ok=True)  # of an earlier report of other runs
        return False
    write_atomically(path, lambda stream: stream.write(png(figure)))
    return True


def _panels(shown: Shown, compared: figures.Compared) -> list[Any]:
    drawn = {name: shown.draw(compared, [name]) for name in figures.DIRECTIONS}
    return svgs(shown.name, shown.title, {name: figure for name, figure in drawn.items() if figure is not None})


def report_text(told: Opening, summaries: list[RunSummary], drawn: list[Shown]) -> str:
    """report.md; `drawn` are the figures that were."""
    compared, costs = beside(summaries), costs_table(grouped(summaries))
    sections = {
        "Table 1: sizes of the encoder pairs": tables.markdown(tables.table1_beside(summaries)),
        "Table 2: R@10 on the test split, in percent": f"{tables.markdown(tables.table2(summaries))}\n{TABLE_2_NOTE}",
        **{one.title: f"![{one.title}]({one.name}.png)\n\n{one.caption}\n" for one in drawn},
        **({"Beside the paper": f"{tables.markdown(compared)}\n{PAPER_NOTE}\n"} if compared else {}),
        **({"What it cost, a run on average": tables.markdown(costs)} if costs else {}),
        "Every run": tables.markdown(tables.results_table(summaries)),
        "How it came to it": f"{tables.markdown(tables.course_table(summaries))}\n{RUNS_NOTE}",
        **({"Damaged runs, left out": "".join(f"- {line}\n" for line in told.damaged)} if told.damaged else {}),
    }
    opening = "\n\n".join(
        [f"# {told.question or told.study}", f"Study {told.study}: {told.states}", told.finding, *told.notes]
    )
    return "\n".join([opening + "\n", *(f"## {key}\n\n{sections[key]}" for key in sections)])


def _states(summaries: list[RunSummary]) -> str:
    states = Counter(run.state for run in summaries)
    told = ", ".join(f"{number} {state}" for state, number in sorted(states.items()))
    corpora = ", ".join(sorted({f"{run.corpus} {run.corpus_identity}".strip() for run in summaries}))
    runs = "1 run" if len(summaries) == 1 else f"{len(summaries)} runs"
    return f"{runs}: {told}. Corpus: {corpora}."


def _notes(summaries: list[RunSummary], changes: list[str]) -> list[str]:
    controls = sum(run.experiment.data.shuffle_pairs for run in summaries)
    told = [f"The grid file's runs, changed by --set: {', '.join(changes)}."] if changes else []
    control = f"{controls} of the runs are controls, trained with wrong images (data.shuffle_pairs)."
    return told + [control] * bool(controls)


TABLE_2_NOTE = """\
TL: transfer learning, which none of these rows uses. Ours: the mean over the finished seeds, ± their sample standard
deviation where there are several. Of a single seed, brackets hold the 95 % bootstrap interval, which covers only the
sampling of the test set: another seed may differ by more. Each run is tested at its best epoch, chosen on the split
that the table names; chosen on test, as the paper did, a recall is a little too high. Recalls compare only where
corpus, test pool and protocol are the same: fewer candidates are easier.
"""
PAPER_NOTE = "The text of the paper that this repository was built from lacks the numbers of its Table 2: unknown."
RUNS_NOTE = """\
Recalls and median ranks: speech→image / image→speech on the test split, recalls in percent. R@10 trained: over a sample
of the training split after the last epoch (training.train_recall_sample), as the paper read it on Flickr8k. Stage
restarts: the epoch after which a stage began, and the epoch whose checkpoint it began from. Wall time is
hours:minutes:seconds of training. Settings: those in which runs of one pair differ.
"""
FIGURES = (
    Shown(
        "recall_by_epoch",
        "R@10 by epoch, and the rate",
        "After each epoch, on the split that chose the best one (the paper's figure 2 shows the test set's); below, "
        "the learning rate. A new stage begins at the checkpoint that the dotted line ties it to. Of many "
        "configurations the seven with the best epochs are coloured.",
        figures.recall_by_epoch,
    ),
    Shown(
        "recall_by_size",
        "R@10 by the speech encoder's size",
        "On test. Bars: the sample standard deviation over seeds, or the 95 % bootstrap interval of a single one. No "
        "smaller pair does better than one on the Pareto front.",
        figures.recall_by_size,
    ),
    Shown(
        "trained_and_test",
        "Trained against test",
        "A point a run: R@10 over a sample of the trained captions after the last epoch, and on test at the best one. "
        "How far a point lies below the line, the pair overfits; the two pools may differ in size.",
        figures.trained_and_test,
    ),
)
