"""plan.json: a stage's settings, and the checkpoint of the stages before that it starts from. It loads no torch."""

from sia.checkpoint.chosen import Chosen, choose_checkpoint
from sia.config import Stage
from sia.run.folder import RunFolder
from sia.run.records import StagePlan


def plan_stage(run: RunFolder, number: int) -> None:
    """Plan stage `number`, from 1, where that is not done yet. Raises UserError where no checkpoint is left to it."""
    if StagePlan.read_sound(run.stage(number).plan) is not None:
        return
    planned = run.planned_stages()
    settings, before = planned[number - 1], planned[: number - 1]
    start = choose_checkpoint(run, settings.start_from or "best", stages=[number - 1]) if before else None
    write_plan(run, number, settings, before, start)


def write_plan(run: RunFolder, number: int, settings: Stage, before: list[Stage], start: Chosen | None) -> None:
    StagePlan(
        stage=settings,
        first_epoch=sum(stage.epochs for stage in before),
        start_checkpoint=str(start.path.relative_to(run.path)) if start else None,
        start_epoch=start.epoch if start else None,
        start_lr=run.experiment().optimizer.learning_rate * settings.lr_scale,
    ).write(run.stage(number).plan)
