"""One step's loss and gradient, and whether steps add up to something learnt."""

import math
from pathlib import Path
from typing import Any, Literal

import pytest
import stages
import torch
from stages import experiment, first_batch

from sia.config import Stage, resolve
from sia.data.loader import training_loader
from sia.data.prepared_corpus import PreparedCorpus
from sia.distributed import Ranks
from sia.errors import UserError
from sia.losses import hinge
from sia.objectives import Hinge
from sia.schedules import Calr, Calwr, Constant, Cylr, Rate, Schedule
from sia.training.batch_loss import Objective, batch_loss
from sia.training.trainer import Trainer, build_trainer, schedule_of


def trainer(corpus: Path, **dotted: Any) -> Trainer:
    settings = experiment(corpus, **dotted)
    return build_trainer(settings, settings.stages[0], PreparedCorpus.open(corpus), Ranks())


def test_the_loss_of_a_batch_is_the_hinge_of_its_cosines(corpus: Path) -> None:
    """Captions of one image are no negatives, wherever they stand."""
    one = trainer(corpus, **{"data.bucket_size": 1})
    one.state.model.eval()
    batch = next(
        batch
        for batch in training_loader(one.dataset, one.state.sampler, 0, pin=False)
        if len(set(batch.image_ids.tolist())) < 16
    )
    images = (batch.images / 255 - torch.tensor([0.485, 0.456, 0.406])[:, None, None]) / torch.tensor(
        [0.229, 0.224, 0.225]
    )[:, None, None]
    with torch.no_grad():
        speech, image = one.state.model(batch.frames, batch.num_frames, images)
    total, ids = 0.0, batch.image_ids.tolist()
    for i in range(16):
        for j in range(16):
            if ids[i] != ids[j]:
                total += max(0.0, float(speech[i] @ image[j] - speech[i] @ image[i]) + 0.2)
                total += max(0.0, float(speech[j] @ image[i] - speech[i] @ image[i]) + 0.2)
    assert one.step(batch).item() == pytest.approx(total / 16, rel=1e-4)


def test_the_sum_is_the_mean_times_the_batch() -> None:
    speech, image = torch.randn(5, 4, dtype=torch.float64), torch.randn(5, 4, dtype=torch.float64)
    ids = torch.tensor([0, 1, 2, 2, 3])
    mean, total = (
        batch_loss(speech, image, ids, Objective(Hinge(normaliser=name, margin=0.7)), Ranks())
        for name in ("mean", "sum")
    )
    assert mean.item() == pytest.approx(hinge(speech @ image.T, ids[:, None] == ids, 0.7).item())
    assert total.item() == pytest.approx(5 * mean.item())


@pytest.mark.parametrize(
    ("stage", "expected"),
    [
        (Stage(schedule=Calr(), epochs=2), [4e-3, 2e-3, 0.0]),
        (Stage(schedule=Calr(), epochs=2, lr_scale=0.5), [2e-3, 1e-3, 0.0]),
        (Stage(schedule=Calwr(first_cycle_epochs=1, multiplier=2)), [4e-3, 4e-3, 2e-3]),
        (Stage(schedule=Cylr(period_epochs=2, lowest_rate=1e-3)), [1e-3, 4e-3, 1e-3]),
        (Stage(schedule=Cylr(period_epochs=4, lowest_rate=1.0)), [4e-3, 4e-3, 4e-3]),
        (Stage(schedule=Constant(), warmup_steps=20), [2e-4, 2.2e-3, 4e-3]),
    ],
)
def test_a_stages_schedule_is_its_own(stage: Stage, expected: list[float]) -> None:
    """Epochs of ten steps: the rate at the beginning of the first three."""
    schedule = schedule_of(resolve({"optimizer.learning_rate": 4e-3}, source="test"), stage, 10)
    assert [schedule(step) for step in (0, 10, 20)] == pytest.approx(expected, abs=1e-12)


def test_a_pair_with_a_resnet_is_trained(corpus: Path) -> None:
    settings = experiment(corpus, **{"model.image": "resnet"})
    one = build_trainer(settings, settings.stages[0], PreparedCorpus.open(corpus), Ranks())
    batch = first_batch(one)
    losses = [one.step(batch).item() for _ in range(4)]
    assert settings.model.pair_name == "RG1A16" and losses[-1] < losses[0]


class Step(Schedule):
    """A schedule that is known by being defined."""

    name: Literal["step_of_a_test"] = "step_of_a_test"
    share: float = 0.1

    def build(self, rate: float, epochs: int, steps_an_epoch: int) -> Rate:
        return lambda step: rate if step < epochs * steps_an_epoch / 2 else rate * self.share


def test_a_new_schedule_is_one_class() -> None:
    stage = {"epochs": 4, "lr_scale": 0.5, "schedule": {"name": "step_of_a_test", "share": 0.25}}
    found = resolve({"optimizer.learning_rate": 4e-3, "stages": [stage]}, source="test")
    schedule = schedule_of(found, found.stages[0], 10)
    assert [schedule(step) for step in (0, 19, 20)] == [2e-3, 2e-3, 5e-4]


def test_the_gradient_is_clipped(corpus: Path) -> None:
    norms = []
    for clip in (None, 0.01):
        one = trainer(corpus, **{"optimizer.gradient_clip": clip})
        one.step(first_batch(one))
        norms.append(math.hypot(*(weight.grad.norm().item() for weight in one.state.model.parameters())))
    assert norms[0] > 0.1 and norms[1] == pytest.approx(0.01, rel=1e-3)


def test_images_of_another_size_are_refused(corpus: Path) -> None:
    with pytest.raises(UserError, match=r"set data\.short_side=32"):
        trainer(corpus, **{"data.short_side": 64})


def deviation(share: float, queries: int = 64) -> float:
    """Of the share of hits among so many independent queries."""
    return math.sqrt(share * (1 - share) / queries)


CHANCE = {"R_at_1": 1 / 64, "R_at_10": 10 / 64}
DIRECTIONS = ("speech_to_image", "image_to_speech")


@pytest.mark.slow
def test_a_pair_learns(large_corpus: Path, tmp_path: Path) -> None:
    run = stages.trained(tmp_path, experiment(large_corpus, Stage(epochs=20, schedule=Calr())))
    first, last = stages.rows(run)[0], stages.rows(run)[-1]
    assert last["train/loss"] < 0.5 * first["train/loss"]
    for direction in DIRECTIONS:
        assert last[f"validation/{direction}/R_at_1"] > CHANCE["R_at_1"] + 5 * deviation(CHANCE["R_at_1"])
        assert last[f"validation/{direction}/R_at_10"] > 0.8


@pytest.mark.slow
def test_the_control_learns_nothing_that_holds(large_corpus: Path, tmp_path: Path) -> None:
    """Trained on wrong images: whatever it knows by heart, it must not find the right ones."""
    chain = Stage(epochs=20, schedule=Calr())
    run = stages.trained(tmp_path, experiment(large_corpus, chain, **{"data.shuffle_pairs": True}))
    for direction in DIRECTIONS:
        for measure, share in CHANCE.items():
            assert stages.rows(run)[-1][f"validation/{direction}/{measure}"] < share + 4 * deviation(share)


@pytest.mark.parametrize("seed", [0, 1])
def test_an_untrained_pair_is_at_chance(large_corpus: Path, seed: int) -> None:
    one = trainer(large_corpus, **{"training.seed": seed})
    report = one.measure()
    for direction in DIRECTIONS:
        for measure, share in CHANCE.items():
            assert abs(report[f"validation/{direction}/{measure}"] - share) < 4 * deviation(share)
