"""What a step learns of a batch is the same on one, two and four ranks, at once or in chunks, for every loss."""

import os
from collections.abc import Iterator, Mapping
from functools import cache, partial
from pathlib import Path
from typing import Any, Literal

import pytest
import stages
import tiny_corpus
import torch
from torch.nn.parallel import DistributedDataParallel

from sia.cluster.launch import Launch
from sia.cluster.profile import Profile
from sia.data.loader import Batch
from sia.data.prepared_corpus import PreparedCorpus
from sia.distributed import Ranks, joined_ranks
from sia.errors import UserError
from sia.losses import hinge
from sia.models.dual_encoder import DualEncoder
from sia.objectives import LARGEST_SCALE, HingeSampled, Learned, Loss
from sia.run.folder import RunFolder
from sia.sweep.corpora import check_fit
from sia.training.batch_loss import Objective, batch_loss
from sia.training.batch_norm import synchronise
from sia.training.gradient import backward, backward_in_chunks, chunks_of, kept_buffers
from sia.training.trainer import build_trainer

Values = dict[str, torch.Tensor]
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
TRAINED: dict[str, dict[str, Any]] = {
    "default": {},
    "chunks": {"training.chunk_size": 6},
    "bf16": {"training.precision": "bf16"},
    "recompute": {"training.recompute": True},
    "local": {"training.batch_norm": "local"},
}
IMAGE_IDS = [0, 1, 2, 0, 4, 5, 6, 1, 8, 9, 10, 11]
FROZEN = [(number, chunk_size, False) for number in range(len(LOSSES)) for chunk_size in (None, 5)]
LIVE = [(0, chunk_size, True) for chunk_size in (12, 8, 5)]  # captions over all ranks; of 5, four ranks hold one or two


def whole_batch() -> Batch:
    """Twelve captions of ten images, in float64."""
    chance = torch.Generator().manual_seed(1)
    frames = torch.randn(12, 50, 40, generator=chance, dtype=torch.float64)
    images = torch.randn(12, 3, 32, 32, generator=chance, dtype=torch.float64)[IMAGE_IDS]
    num_frames = torch.tensor([30, 8, 21, 50, 6, 17, 44, 12, 9, 33, 28, 50])
    return Batch(frames, num_frames, images, torch.tensor(IMAGE_IDS))


def learnt(ranks: Ranks, number: int, chunk_size: int | None, live: bool) -> Values:
    """Loss, and the gradient of every weight, of this rank's share of the batch, in float64.

    live: statistics of batch norm, far from mean 0, after two passes; else they are fixed, and chunks change nothing.
    """
    torch.manual_seed(0)
    pair = DualEncoder.from_config(tiny_corpus.experiment().model).double()
    whole = whole_batch()
    if not live:
        pair.image(torch.randn(20, 3, 32, 32, dtype=torch.float64))
        pair.eval()
    elif ranks.world_size > 1:
        synchronise(pair, ranks)
    own = Batch(*(column[ranks.rank :: ranks.world_size] for column in whole._replace(images=whole.images + 30 * live)))
    objective = Objective(Loss.model_validate(LOSSES[number]), seed=3).double()
    network: torch.nn.Module = DistributedDataParallel(pair) if ranks.world_size > 1 else pair
    loss_of = partial(_loss, own.image_ids, objective, ranks)
    for _ in range(1 + live):
        if chunk_size is None:
            loss = backward(lambda batch: network(*batch[:3]), loss_of, own)
        else:
            chunks = chunks_of(own, chunk_size, ranks)
            loss = backward_in_chunks(lambda batch: network(*batch[:3]), loss_of, chunks, network)
    ranks.average_gradients(objective)
    return {"loss": loss, **_state(pair), **_state(objective)}


def _loss(ids: torch.Tensor, objective: Objective, ranks: Ranks, speech: torch.Tensor, image: torch.Tensor) -> Any:
    return batch_loss(speech, image, ids, objective, ranks, step=7)


def _state(model: torch.nn.Module) -> Values:
    gradients = {f"gradient of {name}": weight.grad for name, weight in model.named_parameters()}
    return {**gradients, **{name: buffer.clone() for name, buffer in model.named_buffers()}}  # type: ignore[dict-item]


def by_the_trainer(ranks: Ranks, corpus: Path, case: str) -> Values:
    """The same of one step of a run."""
    settings = stages.experiment(corpus, **TRAINED[case])
    one = build_trainer(settings, settings.stages[0], PreparedCorpus.open(corpus), ranks)
    return {"loss": one.step(stages.first_batch(one)), **_state(one.state.model)}


def everything(ranks: Ranks, corpus: Path) -> dict[Any, Values]:
    exactly = {case: learnt(ranks, *case) for case in FROZEN + LIVE}
    return {**exactly, **{case: by_the_trainer(ranks, corpus, case) for case in TRAINED}}


def work(rank: int, world_size: int, folder: str, corpus: str) -> None:
    torch.set_num_threads(1)
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    with joined_ranks(rank, world_size, rank, Path(folder) / "meeting") as ranks:
        torch.save(everything(ranks, Path(corpus)), Path(folder) / f"{rank}.pt")


@pytest.fixture(scope="module")
def on(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """What each of so many ranks has learnt."""

    @cache
    def results(world_size: int) -> list[dict[Any, Values]]:
        if world_size == 1:
            return [everything(Ranks(), corpus)]
        folder = tmp_path_factory.mktemp("ranks")
        torch.multiprocessing.spawn(work, (world_size, str(folder), str(corpus)), nprocs=world_size)
        return [torch.load(folder / f"{rank}.pt") for rank in range(world_size)]

    return results


def assert_close(found: Values, expected: Values, rtol: float = 1e-9, atol: float = 1e-12) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(
            found[name], value, rtol=rtol, atol=atol, msg=lambda text, name=name: f"{name}: {text}"
        )


@pytest.mark.parametrize("number", range(len(LOSSES)), ids=[str(loss) for loss in LOSSES])
def test_chunks_have_the_gradient_of_the_whole_batch(number: int) -> None:
    whole = learnt(Ranks(), number, None, live=False)
    assert whole["loss"] > 0
    for chunk_size in (1, 2, 5, 12, 40):
        assert_close(learnt(Ranks(), number, chunk_size, live=False), whole)


@pytest.mark.slow
@pytest.mark.parametrize("world_size", [2, 4])
def test_ranks_learn_what_one_process_does(on: Any, world_size: int) -> None:
    """Exactly of every loss, with fixed statistics or those of all ranks' captions, and by the trainer's own step."""
    [alone], (first, *others) = on(1), on(world_size)
    for rank in (first, *others):
        for case in FROZEN + LIVE:
            assert_close(rank[case], alone[case])
    for case in ("default", "chunks", "bf16", "recompute"):
        near = {"rtol": 0.1, "atol": 0.02} if case == "bf16" else {"rtol": 1e-4, "atol": 1e-4}
        assert_close(first[case], alone[case], **near)
        for other in others:
            assert_close(other[case], first[case], rtol=0, atol=0)


@pytest.mark.slow
def test_local_statistics_do_depend_on_the_ranks(on: Any) -> None:
    [alone], [first, second] = on(1), on(2)
    assert abs(first["local"]["loss"] / alone["local"]["loss"] - 1) > 0.005
    name = "image.densenet.features.norm0.running_mean"
    assert not torch.equal(first["local"][name], second["local"][name])


def test_one_process_needs_no_synchronising_and_gpus_have_pytorchs_own(corpus: Path) -> None:
    """With the same names: a checkpoint of any number of ranks is loaded into either."""
    settings = stages.experiment(corpus)
    pair = build_trainer(settings, settings.stages[0], PreparedCorpus.open(corpus), Ranks()).state.model
    names = list(pair.state_dict())
    assert not any("Sync" in type(module).__name__ for module in pair.modules())
    synchronise(pair, Ranks(0, 2, torch.device("cuda")))
    kinds = {type(module) for module in pair.modules() if isinstance(module, torch.nn.modules.batchnorm._BatchNorm)}
    assert kinds == {torch.nn.SyncBatchNorm} and list(pair.state_dict()) == names


def test_chunks_smaller_than_the_ranks_are_refused_at_submission_and_in_the_job(corpus: Path) -> None:
    settings = stages.experiment(corpus, **{"training.chunk_size": 3})
    message = r"training\.chunk_size 3 is less than the 4 ranks that share it; raise it"
    with pytest.raises(UserError, match=message):
        check_fit(RunFolder(corpus / "run"), settings, Launch("local", Profile(tasks_per_node=4)))
    with pytest.raises(UserError, match=message):
        build_trainer(settings, settings.stages[0], PreparedCorpus.open(corpus), Ranks(0, 4))


def test_chunks_are_as_equal_as_can_be_and_no_longer_than_their_captions() -> None:
    chunks = chunks_of(whole_batch(), 5, Ranks())
    assert [len(chunk.num_frames) for chunk in chunks] == [4, 4, 4]
    assert [chunk.frames.shape[1] for chunk in chunks] == [50, 44, 50]
    assert torch.equal(torch.cat([chunk.image_ids for chunk in chunks]), torch.tensor(IMAGE_IDS))


@pytest.mark.parametrize("world_size", [2, 3, 4])
def test_a_chunk_is_the_same_captions_on_any_number_of_ranks(world_size: int) -> None:
    batch = whole_batch()._replace(image_ids=torch.arange(12))
    shares = [Batch(*(column[rank::world_size] for column in batch)) for rank in range(world_size)]
    for chunk_size in (4, 5, 6, 11, 12):
        alone = [set(chunk.image_ids.tolist()) for chunk in chunks_of(batch, chunk_size, Ranks())]
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
