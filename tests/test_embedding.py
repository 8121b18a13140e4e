"""Recall of a split against a pair that embeds its captions and images one by one."""

import io
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny_corpus
import torch
from torch import Tensor

from sia.data.images import pixels, read_image
from sia.data.prepared_corpus import PreparedCorpus
from sia.distributed import Ranks
from sia.embedding import Embedder, fixed_sample, image_of_caption, recalls
from sia.models.dual_encoder import DualEncoder
from sia.recall import recall_report

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def prepared(corpus: Path) -> PreparedCorpus:
    return PreparedCorpus.open(corpus)


@pytest.fixture(scope="module")
def pair(prepared: PreparedCorpus) -> DualEncoder:
    """Untrained, but with batch statistics of some images."""
    torch.manual_seed(0)
    model = DualEncoder.from_config(tiny_corpus.experiment().model)
    model.image(torch.randn(20, 3, 30, 30))
    return model


def embedder(pair: DualEncoder, prepared: PreparedCorpus, batch_size: int = 5, **data: object) -> Embedder:
    settings = tiny_corpus.experiment().data.model_copy(update=data)
    return Embedder(pair, prepared, settings, Ranks(), batch_size)


def speech_one_by_one(pair: DualEncoder, prepared: PreparedCorpus, indices: list[int]) -> Tensor:
    frames = [torch.from_numpy(prepared.frames(index)) for index in indices]
    with torch.no_grad():
        return torch.cat([pair.eval().speech(caption[None], torch.tensor([len(caption)])) for caption in frames])


def images_one_by_one(pair: DualEncoder, prepared: PreparedCorpus, indices: list[int]) -> Tensor:
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    rows = []
    for index in indices:
        array = pixels(read_image(io.BytesIO(prepared.image(index))))[1:31, 1:31]
        normal = torch.from_numpy((array / 255 - mean) / std).float()
        with torch.no_grad():
            rows.append(pair.eval().image(normal.permute(2, 0, 1)[None])[0])
    return torch.stack(rows)


def naive_recalls(pair: DualEncoder, prepared: PreparedCorpus, indices: list[int], pool: list[int]) -> dict[str, float]:
    """A report over the captions, each image of the pool embedded on its own."""
    first: dict[str, int] = {}
    for index in pool:
        first.setdefault(prepared.captions[index].image_id, index)
    names = list(first)
    owner = torch.tensor([names.index(prepared.captions[index].image_id) for index in indices])
    images = images_one_by_one(pair, prepared, list(first.values()))
    return recall_report(speech_one_by_one(pair, prepared, indices), images, owner)


def test_embeddings_come_in_the_order_asked_for(pair: DualEncoder, prepared: PreparedCorpus) -> None:
    indices = [40, 3, 17, 79, 4, 62, 3]
    for batch_size in (1, 3, 50):
        batched = embedder(pair, prepared, batch_size)
        speech, images = batched.speech(indices), batched.images(indices)
        torch.testing.assert_close(speech, speech_one_by_one(pair, prepared, indices), rtol=0, atol=1e-5)
        torch.testing.assert_close(images, images_one_by_one(pair, prepared, indices), rtol=0, atol=1e-5)


def test_recalls_equal_those_of_embedding_one_by_one(pair: DualEncoder, prepared: PreparedCorpus) -> None:
    """Train has three captions an image; its sample leaves images out."""
    queries = {"validation": prepared.split("validation"), "train": fixed_sample(prepared.split("train"), 20, seed=0)}
    report = recalls(embedder(pair, prepared), queries)
    expected = {
        f"{name}/{measure}": value
        for name, indices in queries.items()
        for measure, value in naive_recalls(pair, prepared, indices, indices).items()
    }
    assert report == pytest.approx(expected)
    assert len(report) == 20


def test_pools_are_of_images_in_their_order(pair: DualEncoder, prepared: PreparedCorpus) -> None:
    train = prepared.split("train")
    report = recalls(embedder(pair, prepared), {"train": train}, pool=4, folds=2)
    expected: Counter[str] = Counter()
    for start in (0, 4):
        pool = prepared.image_pool(train)[start : start + 4]
        shown = {prepared.captions[index].image_id for index in pool}
        own = [index for index in train if prepared.captions[index].image_id in shown]
        assert len(own) == 12
        expected.update({key: value / 2 for key, value in naive_recalls(pair, prepared, own, pool).items()})
    assert report == pytest.approx({f"train/{measure}": value for measure, value in expected.items()})


def test_the_place_of_each_captions_image(prepared: PreparedCorpus) -> None:
    indices, candidates = [40, 3, 17, 79, 4, 3], [3, 79, 40, 17]
    names = [prepared.captions[index].image_id for index in candidates]
    expected = [names.index(prepared.captions[index].image_id) for index in indices]
    assert image_of_caption(prepared, indices, candidates).tolist() == expected


def test_held_out_captions_choose_among_all_images(pair: DualEncoder, prepared: PreparedCorpus) -> None:
    held_out = replace(prepared, description=prepared.description.model_copy(update={"held_out": "captions"}))
    test = held_out.split("test")
    everything = list(range(len(held_out.captions)))
    report = recalls(embedder(pair, held_out), {"test": test})
    expected = naive_recalls(pair, held_out, test, everything)
    assert report == pytest.approx({f"test/{measure}": value for measure, value in expected.items()})
    assert len(held_out.image_pool(test)) == 48 > len(prepared.image_pool(test)) == 16


@pytest.mark.parametrize("training", [True, False])
def test_embedding_leaves_the_model_as_it_was(pair: DualEncoder, prepared: PreparedCorpus, training: bool) -> None:
    pair.train(training)
    before = {name: value.clone() for name, value in pair.state_dict().items()}
    recalls(embedder(pair, prepared), {"test": prepared.split("test")})
    assert all(module.training == training for module in pair.modules())
    assert all(torch.equal(before[name], value) for name, value in pair.state_dict().items())


def test_the_corpuss_own_statistics_are_taken_out(pair: DualEncoder, prepared: PreparedCorpus) -> None:
    own = embedder(pair, prepared, normalisation="corpus", standardise_frames=True)
    torch.testing.assert_close(own.mean, torch.tensor(prepared.description.pixel_mean))
    torch.testing.assert_close(own.std, torch.tensor(prepared.description.pixel_std))
    assert not torch.allclose(own.images([0, 1]), embedder(pair, prepared).images([0, 1]))
    frames = torch.from_numpy(prepared.frames(0))
    mean, std = (torch.tensor(getattr(prepared.description, key)) for key in ("frame_mean", "frame_std"))
    with torch.no_grad():
        expected = pair.speech(((frames - mean) / std)[None], torch.tensor([len(frames)]))
    torch.testing.assert_close(own.speech([0]), expected, rtol=0, atol=1e-5)


def test_a_fixed_sample() -> None:
    indices = list(range(100, 200))
    sample = fixed_sample(indices, 10, seed=0)
    assert sample == fixed_sample(indices, 10, seed=0) == sorted(set(sample))
    assert len(sample) == 10 and set(sample) <= set(indices)
    assert fixed_sample(indices, 10, seed=1) != sample
    assert fixed_sample(indices, 100, seed=0) == fixed_sample(indices, 1000, seed=0) == indices
