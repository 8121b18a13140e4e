"""A stage from its beginning to its end: interrupted or not, measured, recorded, restarted."""

import math
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest
import stages
from stages import EPOCHS, STEPS, experiment, first_batch

from sia.config import Stage
from sia.data.prepared_corpus import PreparedCorpus
from sia.distributed import Ranks
from sia.embedding import Embedder, recalls
from sia.errors import UserError
from sia.models.dual_encoder import DualEncoder
from sia.run.folder import RunFolder
from sia.run.row_files import append_row, read_rows
from sia.schedules import Calr
from sia.sweep.chain import plan_stage
from sia.training.trainer import build_trainer


@dataclass
class Whole:
    """A run that was never interrupted."""

    run: RunFolder
    corpus: Path

    def is_reproduced_by(self, run: RunFolder) -> bool:
        assert stages.rows(run) == stages.rows(self.run)
        for name in ("last", "best"):
            here, there = (stages.saved(getattr(one.stage(1), name)) for one in (run, self.run))
            for part in ("model", "optimizer", "sampler", "random"):
                assert stages.same(here[part], there[part]), (name, part)
        return True


@pytest.fixture(scope="module")
def whole(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Whole:
    return Whole(stages.trained(tmp_path_factory.mktemp("whole"), experiment(corpus)), corpus)


def test_a_row_that_a_job_of_the_past_added_is_gone_at_the_stages_end(whole: Whole, tmp_path: Path) -> None:
    run = stages.begin(tmp_path, experiment(whole.corpus))
    stages.train(run, flag=stages.RaisedAfter(2 * STEPS))

    def add_once_more() -> None:
        if len(stages.rows(run)) == 3:
            append_row(run.metrics, {**read_rows(run.metrics)[-1], "time": 0.0})

    assert stages.train(run, confirm=add_once_more) is True
    assert whole.is_reproduced_by(run)


def test_an_interruption_is_checkpointed_where_it_happened(whole: Whole, tmp_path: Path) -> None:
    run = stages.begin(tmp_path, experiment(whole.corpus))
    stages.train(run, flag=stages.RaisedAfter(STEPS + 2))
    content = stages.saved(run.stage(1).partial)
    assert (content["sampler"]["epoch"], content["sampler"]["next_batch"]) == (1, 2)
    assert stages.saved(run.stage(1).last)["progress"]["epochs_done"] == 1
    assert (content["progress"]["step"], content["progress"]["epochs_done"]) == (STEPS + 2, 1)
    assert len(stages.rows(run)) == 1


@pytest.mark.slow
def test_loader_workers_change_nothing(whole: Whole, tmp_path: Path) -> None:
    """Nor do the batches that they had read ahead when the job was interrupted."""
    run = stages.begin(tmp_path, experiment(whole.corpus, **{"runtime.num_workers": 1}))
    stages.train(run, flag=stages.RaisedAfter(STEPS + 1))
    assert stages.train(run)
    assert whole.is_reproduced_by(run)


@pytest.mark.parametrize("lost", ["the row and best.pt", "the row", "nothing", "the row, torn"])
def test_a_job_that_dies_between_its_writes_is_mended(whole: Whole, tmp_path: Path, lost: str) -> None:
    """An epoch is written as last.pt, then best.pt, then its row; the next job finds any part of that."""
    run = RunFolder(tmp_path / whole.run.name)
    shutil.copytree(whole.run.path, run.path)
    run.stage(1).done.unlink()
    lines = run.metrics.read_text().splitlines(keepends=True)
    if lost != "nothing":
        run.metrics.write_text("".join(lines[:-1]) + (lines[-1][:20] if "torn" in lost else ""))
    if "best" in lost:
        best = stages.saved(run.stage(1).last)["progress"]["best_epoch"]
        run.stage(1).best.unlink()
        if best != EPOCHS:
            os.link(whole.run.stage(1).best, run.stage(1).best)
    assert stages.train(run)
    assert run.stage(1).done.exists()
    assert whole.is_reproduced_by(run)


def test_another_seed_is_another_run(whole: Whole, tmp_path: Path) -> None:
    other = stages.trained(tmp_path, experiment(whole.corpus, Stage(epochs=1), **{"training.seed": 1}))
    assert stages.rows(other)[0]["train/loss"] != stages.rows(whole.run)[0]["train/loss"]


def test_rows_say_what_happened(whole: Whole) -> None:
    rows = stages.rows(whole.run)
    assert [(row["stage"], row["epoch"], row["stage_epoch"]) for row in rows] == [(1, n, n) for n in range(1, 6)]
    measured = {f"{split}/{way}" for split in ("validation", "train") for way in ("speech_to_image", "image_to_speech")}
    names = {f"{place}/{measure}" for place in measured for measure in ("R_at_1", "R_at_5", "R_at_10", "median_rank")}
    assert names <= rows[0].keys()
    # Cycles of 1, 2 and 4 epochs: the rate of the last step of each epoch.
    rate = 3e-3
    shares = [2 / 3, 2 / 6, 5 / 6, 2 / 12, 5 / 12]
    expected = [rate * (1 + math.cos(math.pi * share)) / 2 for share in shares]
    assert [row["train/learning_rate"] for row in rows] == pytest.approx(expected)


def test_best_is_the_first_of_the_best_epochs(whole: Whole) -> None:
    rows = stages.rows(whole.run)
    directions = ("validation/speech_to_image/R_at_10", "validation/image_to_speech/R_at_10")
    values = [sum(row[key] for key in directions) / 2 for row in rows]
    best = stages.saved(whole.run.stage(1).best)["progress"]
    assert (best["best_value"], best["best_epoch"]) == (max(values), values.index(max(values)) + 1)
    assert best["epochs_done"] == best["best_epoch"]
    # Its weights are those of that epoch's row.
    settings, prepared = whole.run.experiment(), PreparedCorpus.open(whole.corpus)
    model = DualEncoder.from_config(settings.model)
    model.load_state_dict(stages.saved(whole.run.stage(1).best)["model"])
    report = recalls(
        Embedder(model, prepared, settings.data, Ranks(), 64), {"validation": prepared.split("validation")}
    )
    row = rows[best["best_epoch"] - 1]
    assert report == {key: row[key] for key in report}


def test_only_a_better_epoch_becomes_the_best(corpus: Path, tmp_path: Path) -> None:
    """The pair soon finds all of 16 images among ten, and later epochs cannot be better than that."""
    run = stages.trained(tmp_path, experiment(corpus, Stage(epochs=12), **{"runtime.keep_every_epochs": 0}))
    best = stages.saved(run.stage(1).best)["progress"]
    assert best["epochs_done"] == best["best_epoch"] < 12
    assert stages.saved(run.stage(1).last)["progress"]["best_epoch"] == best["best_epoch"]
    assert {path.name for path in run.stage(1).last.parent.iterdir()} == {"best.pt", "last.pt"}


def test_every_nth_epoch_is_kept_without_moments(whole: Whole) -> None:
    stage = whole.run.stage(1)
    assert {path.name for path in stage.last.parent.iterdir()} == {
        "best.pt",
        "last.pt",
        "epoch-0002.pt",
        "epoch-0004.pt",
    }
    kept = stages.saved(stage.weights_of_epoch(4))
    assert kept.keys() == stages.saved(stage.last).keys() - {"optimizer"}
    assert stage.weights_of_epoch(4).stat().st_size < 0.6 * stage.last.stat().st_size


@pytest.mark.parametrize("keep_moments", [False, True])
def test_a_warm_restart_starts_from_the_best(whole: Whole, tmp_path: Path, keep_moments: bool) -> None:
    """Its first step, against one taken by hand from best.pt."""
    restart = Stage(epochs=2, lr_scale=0.5, schedule=Calr(), keep_moments=keep_moments)
    settings = experiment(whole.corpus, Stage(epochs=EPOCHS), restart)
    run = RunFolder(tmp_path / settings.run_name)
    shutil.copytree(whole.run.path, run.path)
    run.config.unlink()
    run.create(settings)
    plan_stage(run, 2)
    stages.train(run, 2, flag=stages.RaisedAfter(1))
    content = stages.saved(run.stage(2).partial)

    best = stages.saved(whole.run.stage(1).best)
    by_hand = build_trainer(settings, restart, PreparedCorpus.open(whole.corpus), Ranks(), 2)
    by_hand.state.model.load_state_dict(best["model"])
    steps = best["optimizer"]["state"][0]["step"].item() if keep_moments else 0
    if keep_moments:
        by_hand.state.optimizer.load_state_dict(best["optimizer"])
    by_hand.state.sampler.set_position(EPOCHS)
    by_hand.step(first_batch(by_hand))
    assert stages.same(content["model"], by_hand.state.model.state_dict())
    assert content["optimizer"]["state"][0]["step"] == steps + 1
    assert content["optimizer"]["param_groups"][0]["lr"] == pytest.approx(3e-3 / 2)
    assert (content["progress"]["best_epoch"], content["sampler"]["epoch"]) == (0, EPOCHS)


def test_another_corpus_and_a_stage_that_was_not_planned_are_refused(
    whole: Whole, large_corpus: Path, tmp_path: Path
) -> None:
    run = stages.begin(tmp_path, experiment(whole.corpus))
    stages.train(run, flag=stages.RaisedAfter(1))
    run.config.write_text(run.config.read_text().replace(str(whole.corpus), str(large_corpus)))
    with pytest.raises(UserError, match="begun on corpus"):
        stages.train(run)
    with pytest.raises(UserError, match="stage 2 is not planned"):
        stages.train(whole.run, 2)
