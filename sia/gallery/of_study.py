"""The gallery of a study: of its finished run that finds most on test."""

import sys
from typing import TYPE_CHECKING

from sia.checkpoint.chosen import choose_checkpoint
from sia.data.prepared_corpus import read_description
from sia.errors import UserError
from sia.run.folder import RunFolder, runs_of
from sia.run.records import Finished

if TYPE_CHECKING:
    from sia.gallery.of_run import Gallery


def gallery_of_study(study: str) -> "Gallery | None":
    """None where no run has finished, or where its corpus or checkpoint cannot be had, which a line tells."""
    best = best_of(runs_of(study))
    if best is None:
        return None
    try:
        choose_checkpoint(best, "best")
        read_description(best.experiment().data.path)
        from sia.gallery.of_run import gallery_of  # it loads torch: not before there is something to show

        return gallery_of(best)
    except (UserError, OSError) as error:
        print(f"no gallery: {error}", file=sys.stderr)
        return None


def best_of(runs: list[RunFolder]) -> RunFolder | None:
    """By the mean of both directions' R@10 on test; damaged runs are left out."""
    found = {run: value for run in runs if (value := _recall(run)) is not None}
    return max(found, key=lambda run: found[run], default=None)


def _recall(run: RunFolder) -> float | None:
    try:
        finished = Finished.read(run.finished)
    except UserError:
        return None
    directions = ("speech_to_image", "image_to_speech")
    return sum(finished.test[f"{one}/R_at_10"] for one in directions) if finished else None
