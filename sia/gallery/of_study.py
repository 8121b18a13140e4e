"""The gallery of a study: of its finished run that finds most on test; in a report, it stays while that is the same."""

import re
import sys
from pathlib import Path

from markupsafe import Markup, escape

from sia.checkpoint.chosen import choose_checkpoint
from sia.data.prepared_corpus import read_description
from sia.errors import UserError
from sia.gallery.page import section_of
from sia.run.folder import RunFolder, runs_of
from sia.run.records import Finished
from sia.run.selection import DIRECTIONS

END = "<!-- end of the gallery -->"
MADE = re.compile(rf"(<!-- gallery of [^\n]* -->).*{END}", re.DOTALL)


def gallery_of_study(study: str) -> Markup | None:
    """For a page; None where no run has finished, or its corpus or checkpoint cannot be had, which a line tells."""
    best = best_of(runs_of(study))
    if best is None:
        return None
    try:
        choose_checkpoint(best, "best")
        read_description(best.experiment().data.path)
        from sia.gallery.finds import gallery_of  # it loads torch: not before there is something to show

        shown = section_of(gallery_of(best))
    except (UserError, OSError) as error:
        print(f"no gallery: {error}", file=sys.stderr)
        return None
    return Markup("\n").join([_begin(best), Markup(shown), Markup(END)])


def kept_gallery(page: Path, runs: list[RunFolder]) -> Markup:
    """What a report's page has of the checkpoint that the study's gallery is of; nothing of another one."""
    best = best_of(runs)
    found = MADE.search(page.read_text("utf-8", "replace")) if best and page.is_file() else None
    return Markup(found[0]) if best and found and found[1] == _begin(best) else Markup("")


def _begin(best: RunFolder) -> Markup:
    """The line before a gallery, which says of what it is; a run's best epoch and its seconds tell its checkpoint."""
    finished = Finished.read(best.finished)
    trained = finished and f"epoch {finished.best_epoch}, trained for {finished.seconds:.3f} s"
    return Markup(f"<!-- gallery of {escape(best.name)}, {trained} -->")


def best_of(runs: list[RunFolder]) -> RunFolder | None:
    """By the mean of both directions' R@10 on test; damaged runs are left out."""
    found = {run: value for run in runs if (value := _recall(run)) is not None}
    return max(found, key=lambda run: found[run], default=None)


def _recall(run: RunFolder) -> float | None:
    try:
        finished = Finished.read(run.finished)
    except UserError:
        return None
    return sum(finished.test[f"{one}/R_at_10"] for one in DIRECTIONS) if finished else None
