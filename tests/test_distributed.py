"""Two real ranks against one process that sees the whole batch."""

import os
from pathlib import Path
from typing import Any

import pytest
import stages
import tiny_corpus
import torch
from torch.nn.parallel import DistributedDataParallel

from sia.config import Experiment, Stage
from sia.data.loader import training_loader
from sia.data.prepared_corpus import PreparedCorpus
from sia.distributed import Ranks, device_of, joined_ranks
from sia.embedding import Embedder, recalls
from sia.errors import UserError
from sia.models.dual_encoder import DualEncoder
from sia.objectives import Hinge
from sia.run.folder import RunFolder
from sia.training.batch_loss import Objective, batch_loss
from sia.training.fit import check_agreement, train_stage
from sia.training.preemption import PreemptionFlag
from sia.training.trainer import build_trainer

pytestmark = pytest.mark.slow
RANKS = 2
NUM_FRAMES = torch.tensor([30, 8, 21, 50, 6, 17, 44, 12])
# The ranks hold captions 0, 2, 4, 6 and 1, 3, 5, 7: captions 0 and 3, 1 and 4 of the second case share an image
# across ranks, 2 and 6 within one.
CASES = {
    "distinct images": ([0, 1, 2, 3, 4, 5, 6, 7], "mean"),
    "images shared across ranks": ([0, 1, 2, 0, 1, 5, 2, 7], "mean"),
    "summed": ([0, 1, 2, 0, 4, 5, 6, 7], "sum"),
}
SEEN = [11, 4, 63, 25, 70]


def experiment(corpus: Path, **dotted: Any) -> Experiment:
    return tiny_corpus.experiment(Stage(epochs=2), **{"data.folder": str(corpus), **dotted})


def frozen_pair() -> DualEncoder:
    """In float64, with fixed statistics of batch norm: those of a rank's share are another matter."""
    torch.manual_seed(0)
    pair = DualEncoder.from_config(tiny_corpus.experiment().model).double()
    pair.image(torch.randn(20, 3, 32, 32, dtype=torch.float64))
    return pair.eval()


def exact(ranks: Ranks, case: str) -> dict[str, Any]:
    """Loss and gradients of this rank's share of the batch; alone, of the whole batch."""
    image_ids, normaliser = CASES[case]
    pair = frozen_pair()
    network = DistributedDataParallel(pair) if ranks.world_size > 1 else pair
    chance = torch.Generator().manual_seed(1)
    frames = torch.randn(8, 50, 40, generator=chance, dtype=torch.float64)
    images = torch.randn(8, 3, 32, 32, generator=chance, dtype=torch.float64)[image_ids]
    own = slice(ranks.rank, None, ranks.world_size)
    speech, image = network(frames[own], NUM_FRAMES[own], images[own])
    objective = Objective(Hinge(normaliser=normaliser))  # type: ignore[arg-type]
    loss = batch_loss(speech, image, torch.tensor(image_ids)[own], objective, ranks)
    loss.backward()
    return outcome(loss.item(), network)


def outcome(loss: float, network: torch.nn.Module) -> dict[str, Any]:
    return {"loss": loss, **{name.removeprefix("module."): one.grad for name, one in network.named_parameters()}}


def through_trainer(ranks: Ranks, corpus: Path) -> dict[str, Any]:
    """The same by the trainer itself, on the sampler's first batch, in float32."""
    settings = experiment(corpus)
    trainer = build_trainer(settings, settings.stages[0], PreparedCorpus.open(corpus), ranks)
    trainer.network.eval()
    loss = trainer.step(next(iter(training_loader(trainer.dataset, trainer.state.sampler, 0, pin=False))))
    return outcome(loss.item(), trainer.network)


def embedded(ranks: Ranks, corpus: Path, model: DualEncoder) -> dict[str, Any]:
    """An odd number of captions, and one caption alone, of which a rank has none."""
    prepared = PreparedCorpus.open(corpus)
    embedder = Embedder(model, prepared, experiment(corpus).data, ranks, batch_size=2)
    return {"speech": embedder.speech(SEEN), "images": embedder.images(SEEN), "one": embedder.images(SEEN[:1])}


def shared(ranks: Ranks) -> list[Any]:
    """What the ranks tell each other: rows, of which each has another number, flags and the largest value."""
    rows = torch.arange(2 * (1 + 2 * ranks.rank)).reshape(-1, 2) + 100 * ranks.rank
    flags = [ranks.any(False), ranks.any(ranks.rank == 1), ranks.any(ranks.rank == 0), ranks.any(True)]
    return [ranks.gather(rows).tolist(), flags, ranks.largest(float(ranks.rank))]


def disagreement(ranks: Ranks, corpus: Path, steps: int) -> str:
    """What a rank hears that believes it has taken so many steps more than it has."""
    settings = experiment(corpus)
    trainer = build_trainer(settings, settings.stages[0], PreparedCorpus.open(corpus), ranks)
    trainer.state.progress.step += steps
    try:
        check_agreement(trainer, RunFolder(corpus))
    except UserError as error:
        return str(error)
    return ""


def work(rank: int, folder: str, corpus: str, run: str) -> None:
    """All that a rank does in these tests."""
    torch.set_num_threads(1)
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    with joined_ranks(rank, RANKS, rank, Path(folder) / "meeting") as ranks:
        assert (ranks.rank, ranks.world_size, ranks.is_first) == (rank, RANKS, rank == 0)
        results: dict[str, Any] = {case: exact(ranks, case) for case in CASES}
        results["trainer"] = through_trainer(ranks, Path(corpus))
        results["embedded"] = embedded(ranks, Path(corpus), frozen_pair().float())
        results["shared"] = shared(ranks)
        # The signal reaches one rank alone; both must leave at the same step.
        flag = stages.RaisedAfter(4 if rank == 1 else 1000)
        results["ended"] = [train_stage(RunFolder(Path(run)), 1, ranks, flag)]
        results["ended"].append(train_stage(RunFolder(Path(run)), 1, ranks, PreemptionFlag()))
        results["agreement"] = [disagreement(ranks, Path(corpus), by) for by in (0, ranks.rank)]
    torch.save(results, Path(folder) / f"{rank}.pt")


@pytest.fixture(scope="module")
def run(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """Trained by both ranks."""
    return stages.begin(tmp_path_factory.mktemp("two_ranks"), experiment(corpus))


@pytest.fixture(scope="module")
def found(corpus: Path, run: RunFolder) -> list[dict[str, Any]]:
    """What each rank found."""
    folder = run.path.parent
    torch.multiprocessing.spawn(work, (str(folder), str(corpus), str(run.path)), nprocs=RANKS)
    assert not (folder / "meeting").exists(), "a later job of the same number must not find it"
    return [torch.load(folder / f"{rank}.pt") for rank in range(RANKS)]


def assert_as_alone(one: dict[str, Any], alone: dict[str, Any], tolerance: float) -> None:
    assert one["loss"] == pytest.approx(alone["loss"], rel=tolerance) and one.keys() == alone.keys()
    for name in alone.keys() - {"loss"}:
        atol = tolerance * max(1, float(alone[name].abs().max()))
        torch.testing.assert_close(one[name], alone[name], rtol=0, atol=atol, msg=lambda m, n=name: n + m)


@pytest.mark.parametrize("case", CASES)
def test_loss_and_gradient_are_those_of_one_process(found: list[dict[str, Any]], case: str) -> None:
    alone = exact(Ranks(), case)
    assert alone["loss"] > 0.1 and all(alone[name].any() for name in alone.keys() - {"loss"})
    for results in found:
        assert_as_alone(results[case], alone, tolerance=1e-10)


def test_the_trainer_does_the_same_and_ranks_embed_a_split_together(found: list[dict[str, Any]], corpus: Path) -> None:
    trained, alone = through_trainer(Ranks(), corpus), embedded(Ranks(), corpus, frozen_pair().float())
    for results in found:
        assert_as_alone(results["trainer"], trained, tolerance=1e-5)
        for kind, rows in alone.items():
            torch.testing.assert_close(results["embedded"][kind], rows, rtol=0, atol=1e-5)


def test_ranks_tell_each_other_what_they_have_and_stop_where_their_checkpoints_differ(
    found: list[dict[str, Any]],
) -> None:
    for results in found:
        assert results["shared"] == [[[0, 1], [100, 101], [102, 103], [104, 105]], [False, True, True, True], 1.0]
        same, other = results["agreement"]
        assert same == "" and "different checkpoints" in other


@pytest.mark.parametrize(("rank", "gpus", "device"), [(3, 0, "cpu"), (3, 1, "cuda:0"), (3, 4, "cuda:3")])
def test_the_device_of_a_rank(rank: int, gpus: int, device: str) -> None:
    assert str(device_of(rank, gpus)) == device


def test_more_ranks_than_gpus_are_refused() -> None:
    with pytest.raises(UserError, match="tasks_per_node"):
        device_of(2, 2)


def test_a_stage_on_two_ranks(found: list[dict[str, Any]], corpus: Path, run: RunFolder) -> None:
    """Interrupted by a signal to one of them, then trained to its end; measured as one process measures it."""
    assert [results["ended"] for results in found] == [[False, True]] * RANKS
    assert [row["epoch"] for row in stages.rows(run)] == [1, 2]
    prepared, settings = PreparedCorpus.open(corpus), run.experiment()
    model = DualEncoder.from_config(settings.model)
    model.load_state_dict(stages.saved(run.stage(1).last)["model"])
    embedder = Embedder(model, prepared, settings.data, Ranks(), 64)
    report, row = recalls(embedder, {"validation": prepared.split("validation")}), stages.rows(run)[-1]
    assert report == pytest.approx({key: row[key] for key in report})


def test_one_rank_needs_no_group(tmp_path: Path) -> None:
    with joined_ranks(0, 1, 0, tmp_path / "meeting") as ranks:
        assert ranks.world_size == 1 and ranks.any(True) and not ranks.any(False)
        assert ranks.largest(2.5) == 2.5
        assert torch.equal(ranks.gather(torch.ones(2, 3)), torch.ones(2, 3))
    assert not (tmp_path / "meeting").exists()
