"""A study's report: report.md with its tables as CSV and its figures as PNG, in `reports/<study>/` beside `runs/`."""

import sys
from collections import Counter
from pathlib import Path

from sia.atomic import write_atomically, write_text
from sia.errors import UserError
from sia.report import tables
from sia.report.figures import recall_by_epoch, recall_by_size
from sia.report.summary import RunSummary, summarise
from sia.run.folder import RunFolder, runs_of, runs_root, studies

CURVES, SIZES = "recall_by_epoch.png", "recall_by_size.png"


def write_report(study: str, out: Path | None = None) -> Path:
    """Write the report of a study, unfinished runs included; the path of report.md.

    Raises UserError if the study has no run.
    """
    runs = runs_of(study)
    if not runs:
        known = ", ".join(studies()) or "none yet"
        raise UserError(f"{study}: no such study under {runs_root()}; there are: {known}")
    summaries, damaged = _summaries(runs)
    folder = out or runs_root().parent / "reports" / study
    write_text(folder / "table1.csv", tables.csv_text(tables.table1(summaries, thousands="")))
    write_text(folder / "table2.csv", tables.csv_text(tables.table2_records(summaries)))
    write_text(folder / "runs.csv", tables.csv_text(tables.runs_records(summaries)))
    drawn = {CURVES: recall_by_epoch(summaries), SIZES: recall_by_size(summaries)}
    for name, png in drawn.items():
        _write_figure(folder / name, png)
    figures = [name for name, png in drawn.items() if png is not None]
    # Last, so that it never names a file that is not there yet.
    write_text(folder / "report.md", report_text(study, summaries, figures) + damaged)
    return folder / "report.md"


def _summaries(runs: list[RunFolder]) -> tuple[list[RunSummary], str]:
    """Of the runs that can be read, and a paragraph on the others. Raises UserError where none can."""
    summaries, lines = [], ""
    for run in runs:
        try:
            summaries.append(summarise(run))
        except (UserError, OSError) as error:
            line = f"{run.name}: {' '.join(str(error).split())}"
            print(f"left out of the report: {line}", file=sys.stderr)
            lines += f"- {line}\n"
    if not summaries:
        raise UserError(f"{runs[0].path.parent}: none of its runs can be read")
    return summaries, f"\n## Damaged runs, left out\n\n{lines}" if lines else ""


def _write_figure(path: Path, png: bytes | None) -> None:
    if png is None:
        path.unlink(missing_ok=True)  # of an earlier report of other runs
    else:
        write_atomically(path, lambda stream: stream.write(png))


def report_text(study: str, summaries: list[RunSummary], figures: list[str]) -> str:
    """report.md; `figures` are the files that were drawn."""
    paper = PAPER_NOTE if tables.paper_pairs(summaries) else ""
    sections = {
        "Table 1: sizes of the encoder pairs": tables.markdown(tables.table1(summaries)),
        "Table 2: R@10 on the test split, in percent": f"{tables.markdown(tables.table2(summaries))}\n"
        f"{TABLE_2_NOTE}{paper}",
        **{FIGURES[name][0]: f"![{FIGURES[name][0]}]({name})\n\n{FIGURES[name][1]}\n" for name in figures},
        "Runs": f"{tables.markdown(tables.runs_table(summaries))}\n{RUNS_NOTE}",
    }
    return "\n".join([f"# {study}\n\n{_opening(summaries)}", *(f"## {key}\n\n{sections[key]}" for key in sections)])


def _opening(summaries: list[RunSummary]) -> str:
    states = Counter(run.state for run in summaries)
    told = ", ".join(f"{number} {state}" for state, number in sorted(states.items()))
    corpora = ", ".join(sorted({f"{run.corpus} {run.corpus_identity}".strip() for run in summaries}))
    controls = sum(run.experiment.data.shuffle_pairs for run in summaries)
    control = f" {controls} of them are controls, trained with wrong images (`data.shuffle_pairs`)." if controls else ""
    return f"{len(summaries)} runs: {told}.{control} Corpus: {corpora}.\n"


TABLE_2_NOTE = """\
TL: transfer learning, which none of these rows uses. Ours: the mean over the finished seeds, ± their sample standard
deviation where there are several. Of a single seed, brackets hold the 95 % bootstrap interval, which covers only the
sampling of the test set: another seed may differ by more. Each run is tested at its best epoch, chosen on the split
that the table names; chosen on test, as the paper did, a recall is a little too high. Recalls compare only where
corpus, test pool and protocol are the same: fewer candidates are easier.
"""
PAPER_NOTE = """\
The text of the paper that this repository was built from lacks the numbers of its Table 2, hence `unknown`.
"""
RUNS_NOTE = """\
Recalls and median ranks: speech→image / image→speech on the test split, recalls in percent. R@10 trained: over a sample
of the training split after the last epoch (`training.train_recall_sample`), as the paper read it on Flickr8k. Stage
restarts: the epoch after which a stage began, and the epoch whose checkpoint it began from. Wall time is
hours:minutes:seconds of training. Settings: those in which runs of one pair differ.
"""
FIGURES = {
    CURVES: (
        "R@10 by epoch",
        "R@10 after each epoch, on the split that chose the best one (the paper's figure 2 shows the test set's).\n"
        "Star: best epoch. Dashed line: a stage that began from an earlier checkpoint, tied to it by dots. Grey line:\n"
        "a new cycle of the rate. Of many configurations the 20 with the best epochs are named, the others grey.",
    ),
    SIZES: (
        "R@10 by the speech encoder's size",
        "Test R@10; bars: the sample standard deviation over seeds, or the 95 % bootstrap interval of a single one.",
    ),
}
