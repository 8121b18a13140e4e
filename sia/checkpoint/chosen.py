"""Which file of a run best, last or epoch=N means, what stands in for a damaged one, and what a stage starts from.

It loads no torch.
"""

import sys
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from sia.config import Stage
from sia.errors import UsageError, UserError
from sia.run.folder import RunFolder
from sia.run.mended import rows_of
from sia.run.records import StagePlan
from sia.run.selection import selection_value


class Chosen(NamedTuple):
    """A checkpoint, the stage and the epoch (of the whole run) at whose end it was saved, and the R@10 that chose."""

    path: Path
    stage: int
    epoch: int
    value: float


def choose_checkpoint(run: RunFolder, wanted: str, stages: Iterable[int] | None = None) -> Chosen:
    """`wanted` is best, last, or epoch=N, of the given stages (default: all).

    Raises UsageError for another word, UserError where the run kept no such checkpoint.
    """
    numbers = list(stages) if stages is not None else list(range(1, len(run.planned_stages()) + 1))
    for chosen in sound_checkpoints(run, wanted, numbers):
        return chosen
    raise no_checkpoint(run, wanted, numbers)


def no_checkpoint(run: RunFolder, wanted: str, stages: Iterable[int]) -> UserError:
    return UserError(f"{run.path}: no checkpoint {wanted}; it kept {', '.join(_kept(run, stages)) or 'none'}")


def sound_checkpoints(run: RunFolder, wanted: str, stages: Iterable[int]) -> Iterator[Chosen]:
    """The checkpoints that are there and not damaged, the one that is meant first.

    For best and last the next best or the one before stands in, and a line on stderr says so; for epoch=N none does.
    """
    meant: Chosen | None = None
    for chosen in _candidates(run, wanted, list(stages)):
        meant = meant or chosen
        if (fault := damage_of(chosen.path)) is None:
            if chosen.epoch != meant.epoch:
                print(f"warning: {run.path}: epoch {chosen.epoch} stands in for {wanted}", file=sys.stderr, flush=True)
            yield chosen
        elif fault:
            print(f"warning: {chosen.path}: {fault}; another checkpoint is looked for", file=sys.stderr, flush=True)


def damage_of(path: Path) -> str | None:
    """What is wrong with a checkpoint by its own checksums; None: it is whole, "": it is not there. Raises OSError."""
    try:
        with zipfile.ZipFile(path) as archive:
            broken = archive.testzip()
    except FileNotFoundError:
        return ""
    except (zipfile.BadZipFile, EOFError, NotImplementedError, ValueError, RuntimeError) as error:
        return f"damaged ({' '.join(str(error).split())})"
    return None if broken is None else f"damaged ({broken} is not as it was written)"


def plan_stage(run: RunFolder, number: int) -> None:
    """Plan stage `number`, from 1, where that is not done yet. Raises UserError where no checkpoint is left to it."""
    if StagePlan.read_sound(run.stage(number).plan) is not None:
        return
    planned = run.planned_stages()
    settings, before = planned[number - 1], planned[: number - 1]
    start = choose_checkpoint(run, settings.start_from or "best", stages=[number - 1]) if before else None
    write_plan(run, number, settings, before, start)


def write_plan(run: RunFolder, number: int, settings: Stage, before: list[Stage], start: Chosen | None) -> None:
    """plan.json: a stage's settings, and the checkpoint of the stages before that it starts from."""
    StagePlan(
        stage=settings,
        first_epoch=sum(stage.epochs for stage in before),
        start_checkpoint=str(start.path.relative_to(run.path)) if start else None,
        start_epoch=start.epoch if start else None,
        start_lr=run.experiment().optimizer.learning_rate * settings.lr_scale,
    ).write(run.stage(number).plan)


def _candidates(run: RunFolder, wanted: str, stages: Iterable[int]) -> Iterator[Chosen]:
    """Where the epochs that are wanted may be found, the one that is meant first."""
    rows = [row for row in rows_of(run) if "stage_epoch" in row and row["stage"] in stages]
    epochs = [Chosen(Path(), row["stage"], row["epoch"], selection_value(row)) for row in rows]
    if wanted == "best":
        ordered = sorted(epochs, key=lambda epoch: -epoch.value)
    elif wanted == "last":
        ordered = epochs[::-1]
    else:
        name, _, number = wanted.partition("=")
        if name != "epoch" or not number.isdigit():
            raise UsageError(f"checkpoint {wanted!r}: use best, last or epoch=N")
        ordered = [epoch for epoch in epochs if epoch.epoch == int(number)]
    for epoch in ordered:
        of_stage = [other for other in epochs if other.stage == epoch.stage]
        files = list(_files(run, epoch, of_stage))
        if wanted == "last":
            files.sort(key=lambda path: path.stem != "last")
        yield from (epoch._replace(path=path) for path in files)


def _files(run: RunFolder, epoch: Chosen, of_stage: list[Chosen]) -> Iterator[Path]:
    """Where an epoch may be found: as its stage's best or last, or among the weights that were kept."""
    stage = run.stage(epoch.stage)
    if epoch == max(of_stage, key=lambda other: other.value):
        yield stage.best
    if epoch == of_stage[-1]:
        yield stage.last
    if epoch in of_stage[-2:-1]:
        yield stage.previous
    yield stage.weights_of_epoch(epoch.epoch)


def _kept(run: RunFolder, stages: Iterable[int]) -> list[str]:
    names = []
    for number in stages:
        stage = run.stage(number)
        names += [f"{path.stem} of stage {number}" for path in sorted(stage.best.parent.glob("*.pt"))]
    return names
