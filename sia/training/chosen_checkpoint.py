"""Which file of a run is meant by best, last or epoch=N. It loads no torch."""

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from sia.errors import UsageError, UserError
from sia.run_folder import RunFolder
from sia.tracking.metrics_log import read_rows
from sia.training.selection import selection_value


class Chosen(NamedTuple):
    """A checkpoint, the stage and the epoch (of the whole run) it was saved in, and the R@10 that chose."""

    path: Path
    stage: int
    epoch: int
    value: float


def choose_checkpoint(run: RunFolder, wanted: str, stages: Iterable[int] | None = None) -> Chosen:
    """`wanted` is best, last, or epoch=N, of the given stages (default: all).

    Raises UsageError for another word, UserError where the run kept no such checkpoint.
    """
    numbers = list(stages) if stages is not None else list(range(1, len(run.planned_stages()) + 1))
    epochs = _epochs(run, numbers)
    if wanted == "best":
        bests = [max(rows, key=lambda chosen: chosen.value) for rows in _by_stage(epochs)]
        found = [best._replace(path=run.stage(best.stage).best) for best in bests]
        found = sorted((best for best in found if best.path.exists()), key=lambda best: -best.value)
    elif wanted == "last":
        found = [last._replace(path=run.stage(last.stage).last) for last in epochs[::-1]]
    else:
        found = _of_epoch(run, epochs, _parse(wanted))
    existing = [chosen for chosen in found if chosen.path.exists()]
    if not existing:
        raise UserError(f"{run.path}: no checkpoint {wanted}; it kept {', '.join(_kept(run, numbers)) or 'none'}")
    return existing[0]


def _epochs(run: RunFolder, stages: list[int]) -> list[Chosen]:
    """The epochs trained so far in these stages, without a path."""
    rows = [row for row in read_rows(run.metrics) if "stage_epoch" in row and row["stage"] in stages]
    return [Chosen(Path(), row["stage"], row["epoch"], selection_value(row)) for row in rows]


def _by_stage(epochs: list[Chosen]) -> list[list[Chosen]]:
    return [[epoch for epoch in epochs if epoch.stage == stage] for stage in sorted({epoch.stage for epoch in epochs})]


def _of_epoch(run: RunFolder, epochs: list[Chosen], number: int) -> list[Chosen]:
    """The epoch's file: its stage's best or last if it is that, else the weights that were kept of it."""
    found = []
    for rows in _by_stage(epochs):
        for epoch in rows:
            if epoch.epoch != number:
                continue
            stage = run.stage(epoch.stage)
            if epoch == max(rows, key=lambda chosen: chosen.value):
                found.append(epoch._replace(path=stage.best))
            if epoch == rows[-1]:
                found.append(epoch._replace(path=stage.last))
            found.append(epoch._replace(path=stage.weights_of_epoch(number)))
    return found


def _parse(wanted: str) -> int:
    name, _, number = wanted.partition("=")
    if name != "epoch" or not number.isdigit():
        raise UsageError(f"checkpoint {wanted!r}: use best, last or epoch=N")
    return int(number)


def _kept(run: RunFolder, stages: list[int]) -> list[str]:
    names = []
    for number in stages:
        stage = run.stage(number)
        names += [f"{path.stem} of stage {number}" for path in sorted(stage.best.parent.glob("*.pt"))]
    return names
