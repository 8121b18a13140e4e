"""The gradient of every loss, with chunks or without, on one, two and four ranks: always that of the whole batch."""

import os
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Literal

import pytest
import stages
import tiny_corpus
import torch
from torch.nn.parallel import DistributedDataParallel

from sia.data.loader import Batch
from sia.data.prepared_corpus import PreparedCorpus
from sia.distributed import Ranks, joined_ranks
from sia.losses import hinge
from sia.models.dual_encoder import DualEncoder
from sia.objectives import LARGEST_SCALE, HingeSampled, Learned, Loss
from sia.training.gradient import backward, backward_in_chunks, chunks_of, kept_buffers
from sia.training.objective import Objective, batch_loss
from sia.training.trainer import build_trainer

LOSSES: list[dict[str, Any]] = [
    {"name": "hinge"},
    {"name": "hinge", "normaliser": "sum"},
    {"name": "hinge_hardest"},
    {"name": "hinge_semihard", "margin": 0.5},
    {"name": "hinge_sampled", "margin": 0.5},
    {"name": "masked_margin_softmax", "scale": 10.0},
    {"name": "info_nce"},
    {"name": "info_nce", "learn_temperature": False},
]
IMAGE_IDS = [0, 1, 2, 0, 4, 5, 6, 1, 8, 9, 10, 11]
STEP = 7


def whole_batch() -> Batch:
    """Twelve captions of ten images, in float64."""
    chance = torch.Generator().manual_seed(1)
    frames = torch.randn(12, 50, 40, generator=chance, dtype=torch.float64)
    images = torch.randn(12, 3, 32, 32, generator=chance, dtype=torch.float64)[IMAGE_IDS]
    num_frames = torch.tensor([30, 8, 21, 50, 6, 17, 44, 12, 9, 33, 28, 50])
    return Batch(frames, num_frames, images, torch.tensor(IMAGE_IDS))


def frozen_pair() -> DualEncoder:
    """In float64, with fixed statistics of batch norm: those of a chunk are another matter."""
    torch.manual_seed(0)
    pair = DualEncoder.from_config(tiny_corpus.experiment().model).double()
    pair.image(torch.randn(20, 3, 32, 32, dtype=torch.float64))
    return pair.eval()


def gradients(ranks: Ranks, settings: dict[str, Any], chunk_size: int | None) -> dict[str, torch.Tensor]:
    """Loss, and the gradient of every weight, of this rank's share of the batch."""
    pair, objective = frozen_pair(), Objective(Loss.model_validate(settings), seed=3).double()
    network = DistributedDataParallel(pair) if ranks.world_size > 1 else pair
    own = Batch(*(column[ranks.rank :: ranks.world_size] for column in whole_batch()))

    def embed(batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        speech, image = network(batch.frames, batch.num_frames, batch.images)
        return speech, image

    loss_of = partial(_loss, own.image_ids, objective, ranks)
    if chunk_size is None:
        loss = backward(embed, loss_of, own)
    else:
        loss = backward_in_chunks(embed, loss_of, chunks_of(own, chunk_size, ranks), network)
    ranks.average_gradients(objective)
    found = {name: weight.grad for name, weight in (*pair.named_parameters(), *objective.named_parameters())}
    return {"loss": loss, **{name: gradient for name, gradient in found.items() if gradient is not None}}


def _loss(
    image_ids: torch.Tensor, objective: Objective, ranks: Ranks, speech: torch.Tensor, image: torch.Tensor
) -> torch.Tensor:
    return batch_loss(speech, image, image_ids, objective, ranks, STEP)


CHUNKS = (None, 4, 5)


def work(rank: int, world_size: int, folder: str) -> None:
    torch.set_num_threads(1)
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    with joined_ranks(rank, world_size, rank, Path(folder) / "meeting") as ranks:
        results = [gradients(ranks, settings, chunk_size) for settings in LOSSES for chunk_size in CHUNKS]
    torch.save(results, Path(folder) / f"{rank}.pt")


@pytest.fixture(scope="module")
def whole() -> list[dict[str, torch.Tensor]]:
    """Each loss's gradient by plain back-propagation of the whole batch, in one process."""
    return [gradients(Ranks(), settings, None) for settings in LOSSES]


def assert_same(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(
            found[name], value, rtol=1e-9, atol=1e-12, msg=lambda text, name=name: f"{name}: {text}"
        )


@pytest.mark.parametrize("chunk_size", [1, 2, 5, 12, 40])
@pytest.mark.parametrize("number", range(len(LOSSES)), ids=[str(loss) for loss in LOSSES])
def test_chunks_have_the_gradient_of_the_whole_batch(
    whole: list[dict[str, torch.Tensor]], number: int, chunk_size: int
) -> None:
    assert whole[number]["loss"] > 0
    assert_same(gradients(Ranks(), LOSSES[number], chunk_size), whole[number])


@pytest.mark.slow
@pytest.mark.parametrize("world_size", [2, 4])
def test_ranks_have_the_gradient_of_one_process(
    whole: list[dict[str, torch.Tensor]], world_size: int, tmp_path: Path
) -> None:
    torch.multiprocessing.spawn(work, (world_size, str(tmp_path)), nprocs=world_size)
    expected = [alone for alone in whole for _ in CHUNKS]
    for rank in range(world_size):
        for found, alone in zip(torch.load(tmp_path / f"{rank}.pt"), expected, strict=True):
            assert_same(found, alone)


def test_chunks_are_as_equal_as_can_be_and_no_longer_than_their_captions() -> None:
    chunks = chunks_of(whole_batch(), 5, Ranks())
    assert [len(chunk.num_frames) for chunk in chunks] == [4, 4, 4]
    assert [chunk.frames.shape[1] for chunk in chunks] == [50, 44, 50]
    assert torch.equal(torch.cat([chunk.image_ids for chunk in chunks]), torch.tensor(IMAGE_IDS))


@pytest.mark.parametrize("world_size", [2, 3, 4])
@pytest.mark.parametrize("chunk_size", [4, 5, 6, 11, 12])
def test_a_chunk_is_the_same_captions_on_any_number_of_ranks(world_size: int, chunk_size: int) -> None:
    batch = whole_batch()._replace(image_ids=torch.arange(12))
    alone = [set(chunk.image_ids.tolist()) for chunk in chunks_of(batch, chunk_size, Ranks())]
    shares = [Batch(*(column[rank::world_size] for column in batch)) for rank in range(world_size)]
    ranks = [chunks_of(share, chunk_size, Ranks(rank, world_size)) for rank, share in enumerate(shares)]
    for number, chunk in enumerate(alone):
        parts = [chunks[number].image_ids.tolist() for chunks in ranks]
        assert min(map(len, parts)) > 0 and set().union(*parts) == chunk and sum(map(len, parts)) == len(chunk)


def test_running_statistics_count_each_chunk_once() -> None:
    norm = torch.nn.BatchNorm1d(3)
    with torch.no_grad(), kept_buffers(norm):
        norm(torch.randn(9, 3) + 5)
        assert norm.running_mean.abs().max() > 0.1
    assert not norm.running_mean.any()
    assert norm.num_batches_tracked == 0


def trained(corpus: Path, steps: int, **dotted: Any) -> Iterator[tuple[float, Any]]:
    """The loss of each step, and the trainer after it."""
    settings = stages.experiment(corpus, **dotted)
    one = build_trainer(settings, settings.stages[0], PreparedCorpus.open(corpus), Ranks())
    batch = stages.first_batch(one)
    for _ in range(steps):
        yield one.step(batch).item(), one
        one.state.progress.step += 1


def test_a_batch_in_chunks_is_learnt(corpus: Path) -> None:
    """Batch norm sees chunks of eight: another course than that of the whole batch, to the same end."""
    losses = [loss for loss, _ in trained(corpus, 12, **{"training.chunk_size": 8})]
    assert losses[-1] < 0.7 * losses[0]


@pytest.mark.parametrize(
    "name", ["hinge_hardest", "hinge_semihard", "hinge_sampled", "masked_margin_softmax", "info_nce"]
)
def test_every_loss_is_learnt_by_the_trainer(corpus: Path, name: str) -> None:
    losses = [loss for loss, _ in trained(corpus, 12, **{"loss.name": name, "optimizer.learning_rate": 1e-2})]
    assert losses[-1] < 0.9 * losses[0]


def test_the_temperature_is_learnt_recorded_and_bounded(corpus: Path) -> None:
    settings = {"loss.name": "info_nce", "loss.temperature": 0.5, "optimizer.learning_rate": 1e-2}
    *_, (_, one) = trained(corpus, 5, **settings)
    learnt = one.objective.measures()["train/temperature"]
    assert learnt == pytest.approx(0.5, rel=0.1) and learnt != pytest.approx(0.5, rel=1e-4)
    with torch.no_grad():
        one.objective.log_scale.fill_(50.0)
    one.objective.keep_in_bounds()
    assert one.objective.measures()["train/temperature"] == pytest.approx(1 / LARGEST_SCALE)


def test_a_temperature_that_is_not_learnt_stays(corpus: Path) -> None:
    settings = {"loss.name": "info_nce", "loss.temperature": 0.5, "loss.learn_temperature": False}
    *_, (_, one) = trained(corpus, 2, **settings)
    assert one.objective.measures() == {} and one.objective.state_dict() == {}


def test_sampled_negatives_depend_on_seed_stage_and_step_alone() -> None:
    similarities, mask = torch.rand(8, 8), torch.eye(8).bool()

    def value(seed: int, stage: int, step: int) -> float:
        return Objective(HingeSampled(), seed, stage)(similarities, mask, step).item()

    assert value(1, 1, 5) == value(1, 1, 5)
    assert len({value(1, 1, 5), value(2, 1, 5), value(1, 2, 5), value(1, 1, 6)}) == 4


class Shifted(Loss):
    """A loss with a learned parameter that is known by being defined."""

    name: Literal["shifted_of_a_test"] = "shifted_of_a_test"
    start: float = 0.5

    def learned(self) -> dict[str, Learned]:
        return {"shift": Learned([self.start, self.start], low=0.0)}

    def measures(self, learned: Mapping[str, torch.Tensor]) -> dict[str, float]:
        return {"shift": float(learned["shift"].sum())}

    def value(
        self,
        similarities: torch.Tensor,
        same_image: torch.Tensor,
        learned: Mapping[str, torch.Tensor],
        generator: torch.Generator,
    ) -> torch.Tensor:
        return hinge(similarities, same_image) + learned["shift"].sum()


def test_a_new_loss_with_a_learned_parameter_is_one_class(corpus: Path) -> None:
    chosen = {"loss": {"name": "shifted_of_a_test", "start": 0.004}, "optimizer.learning_rate": 3e-3}
    seen = [one.objective.measures()["train/shift"] for _, one in trained(corpus, 3, **chosen)]
    assert seen == pytest.approx([0.002, 0.0, 0.0], abs=1e-4), "it falls with the loss, to its bound"
