"""What a step learns, statistics of batch norm live, is the same on one, two and four ranks, at once or in chunks."""

import os
from functools import cache, partial
from pathlib import Path
from typing import Any

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
from sia.models.dual_encoder import DualEncoder
from sia.objectives import Hinge
from sia.run.folder import RunFolder
from sia.sweep.corpora import check_fit
from sia.training.batch_norm import synchronise
from sia.training.gradient import backward_in_chunks, chunks_of
from sia.training.objective import Objective, batch_loss
from sia.training.trainer import build_trainer

Values = dict[str, torch.Tensor]
IMAGE_IDS = [0, 1, 2, 0, 4, 5, 6, 1, 8, 9, 10, 11]
CHUNKS = (12, 8, 5)  # captions over all ranks; of 5, four ranks hold one or two each
SETTINGS: dict[str, dict[str, Any]] = {
    "default": {},
    "chunks": {"training.chunk_size": 6},
    "bf16": {"training.precision": "bf16"},
    "local": {"training.batch_norm": "local"},
}


def exactly(ranks: Ranks, chunk_size: int) -> Values:
    """In float64 and training mode: loss, gradients and statistics after two passes, far from mean 0."""
    torch.manual_seed(0)
    pair, chance = DualEncoder.from_config(tiny_corpus.experiment().model).double(), torch.Generator().manual_seed(1)
    frames = torch.randn(12, 50, 40, generator=chance, dtype=torch.float64)
    images = 30 + torch.randn(12, 3, 32, 32, generator=chance, dtype=torch.float64)[IMAGE_IDS]
    whole = Batch(frames, torch.tensor([30, 8, 21, 50, 6, 17, 44, 12, 9, 33, 28, 50]), images, torch.tensor(IMAGE_IDS))
    own = Batch(*(column[ranks.rank :: ranks.world_size] for column in whole))
    network: torch.nn.Module = pair
    if ranks.world_size > 1:
        synchronise(pair, ranks)
        network = DistributedDataParallel(pair)
    loss_of = partial(_loss, own.image_ids, Objective(Hinge()), ranks)
    for _ in range(2):
        chunks = chunks_of(own, chunk_size, ranks)
        loss = backward_in_chunks(lambda batch: network(*batch[:3]), loss_of, chunks, network)
    return {"loss": loss, **_state(pair)}


def _loss(ids: torch.Tensor, objective: Objective, ranks: Ranks, speech: torch.Tensor, image: torch.Tensor) -> Any:
    return batch_loss(speech, image, ids, objective, ranks)


def by_the_trainer(ranks: Ranks, corpus: Path, case: str) -> Values:
    """The same of one step of a run."""
    settings = stages.experiment(corpus, **SETTINGS[case])
    one = build_trainer(settings, settings.stages[0], PreparedCorpus.open(corpus), ranks)
    return {"loss": one.step(stages.first_batch(one)), **_state(one.state.model)}


def _state(model: torch.nn.Module) -> Values:
    gradients = {f"gradient of {name}": weight.grad for name, weight in model.named_parameters()}
    return {**gradients, **{name: buffer.clone() for name, buffer in model.named_buffers()}}  # type: ignore[dict-item]


def everything(ranks: Ranks, corpus: Path) -> dict[Any, Values]:
    by_trainer = {case: by_the_trainer(ranks, corpus, case) for case in SETTINGS}
    return {**{chunk_size: exactly(ranks, chunk_size) for chunk_size in CHUNKS}, **by_trainer}


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


def assert_close(found: Values, expected: Values, rtol: float, atol: float) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(
            found[name], value, rtol=rtol, atol=atol, msg=lambda text, name=name: f"{name}: {text}"
        )


@pytest.mark.slow
@pytest.mark.parametrize("world_size", [2, 4])
@pytest.mark.parametrize("chunk_size", CHUNKS)
def test_loss_gradient_and_statistics_are_those_of_one_process(on: Any, chunk_size: int, world_size: int) -> None:
    [alone] = on(1)
    for rank in on(world_size):
        assert_close(rank[chunk_size], alone[chunk_size], rtol=1e-9, atol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("world_size", [2, 4])
@pytest.mark.parametrize("case", ["default", "chunks", "bf16"])
def test_a_run_does_not_depend_on_the_number_of_ranks(on: Any, case: str, world_size: int) -> None:
    [alone], (first, *others) = on(1), on(world_size)
    near = {"rtol": 0.1, "atol": 0.02} if case == "bf16" else {"rtol": 1e-4, "atol": 1e-4}
    assert_close(first[case], alone[case], **near)
    for other in others:
        assert_close(other[case], first[case], rtol=0, atol=0)


@pytest.mark.slow
def test_local_statistics_do_depend_on_it(on: Any) -> None:
    [alone], [first, second] = on(1), on(2)
    assert abs(first["local"]["loss"] / alone["local"]["loss"] - 1) > 0.005
    name = "image.densenet.features.norm0.running_mean"
    assert not torch.equal(first["local"][name], second["local"][name])


def test_one_process_needs_no_synchronising(corpus: Path) -> None:
    """The default, and what a checkpoint of any number of ranks is loaded into."""
    settings = stages.experiment(corpus)
    one = build_trainer(settings, settings.stages[0], PreparedCorpus.open(corpus), Ranks())
    assert not any("Sync" in type(module).__name__ for module in one.state.model.modules())


def test_on_gpus_it_is_pytorchs_layer_with_the_same_names() -> None:
    pair = DualEncoder.from_config(tiny_corpus.experiment().model)
    names = list(pair.state_dict())
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
