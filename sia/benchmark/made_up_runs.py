"""A study of finished runs that nobody trained, for what reads run folders."""

from pathlib import Path

from sia.config import Experiment, resolve
from sia.run.folder import RunFolder
from sia.run.records import Finished, StageDone, StagePlan, TrainedOn
from sia.run.row_files import Row, append_row, write_rows

DIRECTIONS = ("speech_to_image", "image_to_speech")
BEGAN = 1_700_000_000.0


def make_up_study(study: Path, num_runs: int, epochs: int) -> None:
    """Runs that differ in rate, width and, five at a time, in their seed."""
    for number in range(num_runs):
        group = number // 5
        values = {
            "model": {"latent_size": 64 << group // 20 % 3, "gru_layers": 2},
            "optimizer": {"learning_rate": 1e-4 * (1 + group % 20) + 1e-7 * (group // 60)},
            "training": {"seed": number % 5},
            "stages": [{"epochs": epochs, "schedule": "calr"}],
        }
        _finish(study, resolve(values, source="the benchmark"), epochs)


def _finish(study: Path, experiment: Experiment, epochs: int) -> None:
    run = RunFolder(study / experiment.run_name)
    run.create(experiment)
    rows = [_row(epoch) for epoch in range(1, epochs + 1)]
    best = {"best_epoch": epochs, "best_value": 1 - 1 / (epochs + 1), "seconds": 60.0 * epochs}
    TrainedOn(name="made up", identity="0123abcd").write(run.corpus)
    append_row(run.provenance, {"stage": 1, "job_id": "1", "git_commit": "a" * 40, "git_dirty": False})
    rate = experiment.optimizer.learning_rate
    StagePlan(stage=experiment.stages[0], first_epoch=0, start_lr=rate).write(run.stage(1).plan)
    StageDone(**best, epochs=epochs, rows=rows).write(run.stage(1).done)
    finished = Finished(
        **best,
        best_stage=1,
        test=_measures(0.5),
        num_test_captions=1000,
        num_test_images=1000,
        world_size=1,
        batch_norm="sync",
        device="none",
        num_stages=1,
        time=BEGAN + 60.0 * epochs,
    )
    write_rows(run.metrics, [*rows, finished.row])
    finished.write(run.finished)


def _row(epoch: int) -> Row:
    place = {"stage": 1, "epoch": epoch, "stage_epoch": epoch, "time": BEGAN + 60.0 * epoch}
    train = {"train/loss": 2.0 / epoch, "train/learning_rate": 2e-4, "train/seconds": 60.0}
    measured = {f"validation/{name}": value for name, value in _measures(1 - 1 / (epoch + 1)).items()}
    return {**place, **train, **measured}


def _measures(value: float) -> dict[str, float]:
    shares = {f"{direction}/R_at_{k}": value * k / 10 for direction in DIRECTIONS for k in (1, 5, 10)}
    return {**shares, **{f"{one}/{rank}_rank": 7.0 for one in DIRECTIONS for rank in ("median", "mean")}}
