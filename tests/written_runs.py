"""Run folders as the training jobs write them, for the tests of what reads them."""

from pathlib import Path
from typing import Any

from sia.atomic import write_json
from sia.config import Experiment, Stage, resolve
from sia.fitted_table import FittedTable
from sia.operate.status import run_views
from sia.operate.status_table import views_table
from sia.run.folder import RunFolder
from sia.run.records import Finished, StageDone, StagePlan
from sia.run.row_files import append_row, read_rows
from sia.schedules import Calr

BEGAN = 1_700_000_000.0
DIRECTIONS = ("speech_to_image", "image_to_speech")


def experiment(**dotted: Any) -> Experiment:
    """A small pair with two stages: 3 epochs of calwr, then 2 from the best of them at half the rate."""
    small = {"model.latent_size": 64, "model.gru_layers": 2, "model.image.blocks": [2, 2], "data.corpus": "scenes"}
    stages = [Stage(epochs=3).model_dump(), Stage(epochs=2, lr_scale=0.5, schedule=Calr()).model_dump()]
    return resolve({**small, "stages": stages}, dotted, source="test")


def measures(value: float) -> dict[str, float]:
    """A recall report: what `sia.recall.recall_report` returns."""
    report = {}
    for direction, share in zip(DIRECTIONS, (value, value * 0.9), strict=True):
        report |= {f"{direction}/R_at_{k}": share * k / 10 for k in (1, 5, 10)}
        report |= {f"{direction}/median_rank": 7.0, f"{direction}/mean_rank": 9.5}
    return report


def epoch_row(
    epoch: int, stage: int, stage_epoch: int, value: float, time: float | None = None, split: str = "validation"
) -> dict[str, Any]:
    place = {"stage": stage, "epoch": epoch, "stage_epoch": stage_epoch, "time": time or BEGAN + 60.0 * epoch}
    train = {"train/loss": 2.0 / epoch, "train/learning_rate": 2e-4, "train/seconds": 50.0}
    return {**place, **train, **{f"{split}/{key}": number for key, number in measures(value).items()}}


def plan_stage(run: RunFolder, number: int, stage: Stage, first_epoch: int, start_epoch: int | None) -> None:
    best = None if start_epoch is None else "stages/1/checkpoints/best.pt"
    place = {"first_epoch": first_epoch, "start_epoch": start_epoch, "start_checkpoint": best}
    StagePlan(stage=stage, **place, start_lr=1e-4).write(run.stage(number).plan)


def end_stage(run: RunFolder, number: int, best_epoch: int = 1, best_value: float = 0.5, seconds: float = 1.0) -> None:
    """done.json of a stage, with the rows that the run has of it."""
    rows = [row for row in read_rows(run.metrics) if row["stage"] == number]
    best = {"best_epoch": best_epoch, "best_value": best_value}
    StageDone(**best, seconds=seconds, epochs=len(rows), rows=rows).write(run.stage(number).done)


def begin_run(runs: Path, study: str, config: Experiment) -> RunFolder:
    """A run whose first stage has been planned, with no row yet."""
    run = RunFolder(runs / study / config.run_name)
    run.create(config)
    write_json(run.corpus, {"name": config.data.corpus, "identity": "0123abcd"})
    append_row(run.provenance, {"stage": 1, "job_id": "17", "git_commit": "a" * 40, "git_dirty": False, "time": BEGAN})
    plan_stage(run, 1, config.stages[0], 0, None)
    return run


def finish_run(runs: Path, study: str, config: Experiment, peak: float = 0.5) -> RunFolder:
    """A finished run of `experiment()`'s two stages: epochs 1 to 3, best 2, then 4 and 5 from epoch 2, best 4."""
    run = begin_run(runs, study, config)
    for epoch, value in enumerate((peak * 0.6, peak * 0.9, peak * 0.8), start=1):
        append_row(run.metrics, epoch_row(epoch, 1, epoch, value, split=config.training.select_on))
    end_stage(run, 1, 2, peak * 0.85, 180.0)
    plan_stage(run, 2, config.stages[1], 3, 2)
    for epoch, value in ((4, peak), (5, peak * 0.95)):
        append_row(run.metrics, epoch_row(epoch, 2, epoch - 3, value, split=config.training.select_on))
    end_stage(run, 2, 4, peak * 0.95, 120.0)
    append_row(run.metrics, write_finished(run, measures(peak)).row)
    return run


def write_finished(run: RunFolder, test: dict[str, float]) -> Finished:
    """finished.json alone, of a run whose best epoch is the fourth."""
    best = {"best_epoch": 4, "best_stage": 2, "best_value": 0.475, "seconds": 300.0, "test": test}
    pool = {"num_test_captions": 200, "num_test_images": 40, "world_size": 1, "batch_norm": "sync", "device": "cpu"}
    finished = Finished(**best, **pool, num_stages=2, time=BEGAN + 400.0)
    finished.write(run.finished)
    return finished


def status_table(runs: list[RunFolder]) -> FittedTable:
    """What `status` shows of the runs of one study."""
    return views_table(runs[0].study, run_views(runs))
