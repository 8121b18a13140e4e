"""Parts of the benchmark at sizes that take no time: that both sides do the same, and what is told of them."""

import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from desk import Desk

from sia.benchmark import PARTS, checkpoint, curves, loading, preparing, recall, step, trial
from sia.benchmark.harness import Action, Comparison, in_turn, machine, peaks_mb, table_of
from sia.benchmark.made_up_corpus import make_up
from sia.data.prepared_corpus import PreparedCorpus

SIZE = step.Size(2, 8, (20, 60), 32, 4, (("blocks", [1, 1]), ("growth_rate", 4), ("initial_features", 8)))


def holds(megabytes: int) -> Action:
    return lambda: torch.ones(megabytes, 2**18).sum()


def test_sides_take_turns_and_ours_is_the_measure() -> None:
    told: list[str] = []
    sides = {"ours": lambda: lambda: told.append("a"), "plain": lambda: lambda: told.append("b")}
    compared = in_turn("case", sides, 3)
    assert "".join(told) == "abbaabba"
    assert [len(seconds) for seconds in compared.seconds.values()] == [3, 3]
    assert Comparison("case", {"ours": [1.0, 2.0], "plain": [3.0, 4.0]}).ratios("plain") == [3.0, 2.0]


def test_what_was_measured_is_a_table_or_json() -> None:
    compared = Comparison("case", {"ours": [1.0, 2.0, 1.0], "plain": [3.0, 4.0, 5.0]}, facts={"loss": 1.0})
    told = json.loads(json.dumps(compared.as_json()))
    assert told["ratios"]["plain"] == {"median": 3.0, "low": 2.0, "high": 5.0}
    assert told["machine"] == machine() and told["seconds"] == compared.seconds
    assert table_of(compared).row_count == 2


@pytest.mark.slow
def test_peak_memory_is_that_of_a_side_alone() -> None:
    _ = torch.ones(400, 2**18)  # what this process has held is not counted
    peaks = peaks_mb({"ours": partial(holds, 1), "plain": partial(holds, 200)})
    assert peaks["ours"] < 50 and 190 < peaks["plain"] < 260


def test_both_sides_of_a_step_begin_with_the_same_loss_and_step(tmp_path: Path) -> None:
    make_up(tmp_path, step.EPOCH * SIZE.batch_size, SIZE.num_frames, SIZE.side)
    losses = step.losses(SIZE, tmp_path)
    assert losses["loss, ours"] == pytest.approx(losses["loss, plain"], abs=1e-5)
    for make in (step.ours, step.plain):
        action = make(SIZE, tmp_path)
        first = float(action())
        assert min(float(action()) for _ in range(10)) < first


def test_a_random_batch_has_more_padding(tmp_path: Path) -> None:
    make_up(tmp_path, step.EPOCH * SIZE.batch_size, SIZE.num_frames, SIZE.side)
    trainer = step._trainer(SIZE, tmp_path)
    bucketed, plain = (
        (1 - batch.num_frames.float().mean() / batch.frames.shape[1]).item()
        for batch in (step.bucketed_batch(trainer), step.random_batch(trainer))
    )
    assert bucketed < 0.1 < plain


def test_both_precisions_learn_from_the_same_weights_and_batches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_up(tmp_path, 48, SIZE.num_frames, SIZE.side, ("train", "train", "validation", "test"))
    own = {"data.folder": str(tmp_path), "data.crop_size": SIZE.side, "data.short_side": SIZE.side}
    tiny = {**own, "model.latent_size": 8, "model.image": dict(SIZE.image), "training.batch_size": 4}
    monkeypatch.setattr(curves, "EXPERIMENT", {**curves.EXPERIMENT, **tiny})
    facts = curves.compare("case", epochs=2, turns=2).facts
    first, second = ([float(loss) for loss in facts[f"loss by epoch, {side}"].split()] for side in ("float32", "bf16"))
    assert len(first) == 2 and first == pytest.approx(second, rel=0.05) and first != second
    assert facts["R@10 in the end, bf16"].count(",") == 1


def test_all_sides_of_recall_find_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recall, "peaks_mb", lambda sides: {})
    facts = recall.compare(60, turns=1, features=64).facts
    assert facts["mean rank, ours"] == facts["mean rank, sorting"] > 1


def test_a_save_is_measured_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(checkpoint, "EPOCH_SECONDS", 0.01)
    stood, alone, landed = checkpoint.stands_still("case", SIZE, turns=2).seconds.values()
    assert len(stood) == len(alone) == 2 and all(one < other for one, other in zip(stood, landed, strict=True))
    assert {len(taken) for taken in checkpoint.epoch_beside("case", SIZE, turns=2).seconds.values()} == {2}
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_study_of_tiny_runs_tells_what_a_trial_costs(tmp_path: Path) -> None:
    make_up(tmp_path / "corpus", 40, (20, 60), 16, trial.SPLITS)
    study = trial.Study(tmp_path, 2, "none")
    study()
    assert all(run.finished.exists() for run in study.runs()) and len(study.runs()) == 2
    told = trial.facts(Comparison("case", {"ours": [1000.0]}), study)
    assert 400 < told["a trial beside its training, ours"] < 1000
    assert told["a job's start"] > 0 and told["driver, MB"] > 50


def test_both_sides_of_loading_read_the_same(tmp_path: Path) -> None:
    corpus = make_up(tmp_path, 2 * loading.BATCH_SIZE, (6, 12), loading.SIDE, lossless=True, num_shards=2)
    loading.write_files(corpus, tmp_path / "files")
    (ours, plain) = (make.args[0] for make in (loading.ours(tmp_path), loading.plain(tmp_path / "files")))
    read = (
        sorted(float(one.sum()) for batch in ours for one in batch.frames),
        sorted(float(one.sum()) for frames, _, _ in plain for one in frames),
    )
    assert read[0] == pytest.approx(read[1], abs=1e-3) and len(read[0]) == 2 * loading.BATCH_SIZE
    assert next(iter(plain))[2].shape == next(iter(ours)).images.shape


def test_both_sides_of_preparing_make_the_same(tmp_path: Path) -> None:
    preparing.write_table(tmp_path, 10)
    preparing.ours(tmp_path)()
    corpus = PreparedCorpus.open(next(tmp_path.glob("*/out")))
    alone = preparing.alone(tmp_path)()
    assert all(np.array_equal(corpus.frames(index), frames) for index, frames in enumerate(alone))
    assert len(alone) == 10 and corpus.description.num_images == 2


def test_every_part_has_cases_and_the_command_refuses_others(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    for part in PARTS.keys() - {"plan"}:
        done = desk.call("benchmark.py", part, "--case", "no-such")
        assert done.returncode == 2 and "no-such" in done.stderr and len(done.stderr.splitlines()) == 1
