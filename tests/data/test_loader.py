import io
import pickle
from pathlib import Path

import numpy as np
import pytest
import tiny_corpus
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sia.data.images import pixels, random_view, read_image
from sia.data.loader import (
    Batch,
    PairDataset,
    decoded,
    image_batches,
    pad,
    shuffled_pairs,
    speech_batches,
    training_loader,
)
from sia.data.prepared_corpus import PreparedCorpus
from sia.data.sampler import BucketBatchSampler

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def prepared(corpus: Path) -> PreparedCorpus:
    return PreparedCorpus.open(corpus)


def pairs(prepared: PreparedCorpus, **dotted: object) -> PairDataset:
    return PairDataset(prepared, tiny_corpus.experiment(**{"data.flip_probability": 0.5, **dotted}))


def batches(dataset: PairDataset, epochs: int = 1, num_workers: int = 0) -> list[Batch]:
    sampler = BucketBatchSampler(dataset.lengths, 8, seed=0)
    loader = training_loader(dataset, sampler, num_workers, pin=False)
    loaded = []
    for epoch in range(epochs):
        sampler.set_position(epoch)
        loaded += list(loader)
    return loaded


def test_captions_are_padded_with_zeros() -> None:
    frames, num_frames = pad([np.ones((length, 40), np.float32) for length in (3, 5, 1)])
    assert frames.shape == (3, 5, 40) and num_frames.tolist() == [3, 5, 1]
    assert frames.sum(dim=(1, 2)).tolist() == [3 * 40, 5 * 40, 40] and not frames[0, 3:].any()


def test_a_batch_holds_what_its_captions_say(prepared: PreparedCorpus) -> None:
    """Frames, views and image ids of the sampler's captions, in its order."""
    dataset = pairs(prepared)
    sampler = BucketBatchSampler(dataset.lengths, 8, seed=0)
    named: dict[int, set[str]] = {}
    for batch, chosen in zip(batches(dataset), sampler, strict=True):
        assert batch.frames.dtype == torch.float32 and batch.images.dtype == torch.uint8
        assert batch.frames.shape == (8, int(batch.num_frames.max()), 40)
        for row, (position, epoch) in enumerate(chosen):
            index = prepared.split("train")[position]
            frames = batch.frames[row, : batch.num_frames[row]]
            assert np.array_equal(frames.numpy(), prepared.frames(index))
            assert not batch.frames[row, batch.num_frames[row] :].any()
            array = pixels(read_image(io.BytesIO(prepared.image(index))))
            key = f"0/{epoch}/{prepared.captions[index].utterance_id}"
            view = random_view(array, tiny_corpus.SIDE - 2, 0.5, key)
            assert np.array_equal(batch.images[row].permute(1, 2, 0), view)
            named.setdefault(int(batch.image_ids[row]), set()).add(prepared.captions[index].image_id)
        assert batch.images.is_contiguous(memory_format=torch.channels_last)
    assert len(named) == 16 and all(len(names) == 1 for names in named.values())


def test_views_change_with_the_epoch_and_the_seed_alone(prepared: PreparedCorpus) -> None:
    dataset = pairs(prepared)
    assert len({dataset[(0, epoch)][1].tobytes() for epoch in range(20)}) > 5
    assert np.array_equal(dataset[(0, 3)][1], pairs(prepared)[(0, 3)][1])
    seeds = [pairs(prepared, **{"training.seed": seed}) for seed in range(10)]
    assert len({one[(0, 0)][1].tobytes() for one in seeds}) > 3


@pytest.mark.slow
def test_workers_change_nothing(prepared: PreparedCorpus) -> None:
    dataset = pairs(prepared)
    alone, worked = batches(dataset, epochs=2), batches(dataset, epochs=2, num_workers=1)
    assert len(alone) == len(worked) == 12
    for one, other in zip(alone, worked, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_images_that_are_kept_are_those_that_are_read(
    prepared: PreparedCorpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of them, or as many as fit; each worker has its share of the memory, and a copy's is whole."""
    decodings: list[int] = []

    def counted(corpus: PreparedCorpus, index: int, short_side: int) -> np.ndarray:
        decodings.append(index)
        return decoded(corpus, index, short_side)

    monkeypatch.setattr("sia.data.loader.decoded", counted)
    plain = batches(pairs(prepared), epochs=2)
    one_image, all_images = tiny_corpus.SIDE**2 * 3 / 1e9, 16
    for fitting in (5, all_images):
        dataset = pairs(prepared, **{"runtime.image_cache_gb": (fitting + 0.5) * one_image})
        decodings.clear()
        for kept, read in zip(batches(dataset, epochs=2), plain, strict=True):
            assert all(torch.equal(a, b) for a, b in zip(kept, read, strict=True))
        assert len(dataset.kept) == fitting
        if fitting == all_images:
            assert len(decodings) == len(set(decodings)) == all_images
        copy = pickle.loads(pickle.dumps(dataset))
        assert not copy.kept and copy.kept.free == pytest.approx((fitting + 0.5) * one_image * 1e9)
    shared = {"runtime.image_cache_gb": 1.0, "runtime.num_workers": 4}
    assert pairs(prepared, **shared).kept.free == pytest.approx(0.25e9)


def test_batches_for_embedding(prepared: PreparedCorpus) -> None:
    chosen = prepared.split("test")[:3]
    (frames, num_frames), (last, _) = speech_batches(prepared, chosen, 2, standardise=False)
    assert np.array_equal(frames[1, : num_frames[1]].numpy(), prepared.frames(chosen[1]))
    assert np.array_equal(last[0].numpy(), prepared.frames(chosen[2]))
    shown = torch.cat(list(image_batches(prepared, chosen, 2, crop_size=20, short_side=32)))
    array = pixels(read_image(io.BytesIO(prepared.image(chosen[2]))))
    assert np.array_equal(shown[2].numpy(), array[6:26, 6:26].transpose(2, 0, 1))


def test_standardised_frames(prepared: PreparedCorpus) -> None:
    dataset = pairs(prepared, **{"data.standardise_frames": True})
    frames = np.concatenate([dataset[(position, 0)][0] for position in range(len(dataset.lengths))], dtype=np.float64)
    np.testing.assert_allclose(frames.mean(axis=0), 0, atol=1e-4)
    np.testing.assert_allclose(frames.std(axis=0), 1, atol=1e-4)
    ((embedded, _),) = speech_batches(prepared, prepared.split("train")[:1], 1, standardise=True)
    assert np.array_equal(embedded[0], dataset[(0, 0)][0])


@settings(deadline=None, max_examples=100)
@given(st.integers(2, 200), st.integers(0, 1000))
def test_shuffled_pairs_are_a_permutation_without_a_fixed_point(count: int, seed: int) -> None:
    wrong = shuffled_pairs(count, seed)
    assert sorted(wrong) == list(range(count)) and not (wrong == np.arange(count)).any()
    assert np.array_equal(wrong, shuffled_pairs(count, seed))
    assert count < 10 or not np.array_equal(wrong, shuffled_pairs(count, seed + 1))


def test_the_control_shows_each_caption_another_ones_image(prepared: PreparedCorpus) -> None:
    dataset, control = pairs(prepared), pairs(prepared, **{"data.shuffle_pairs": True})
    positions = range(len(dataset.lengths))
    assert all(np.array_equal(dataset[(p, 0)][0], control[(p, 0)][0]) for p in positions)
    own, shown = ([one[(p, 0)][2] for p in positions] for one in (dataset, control))
    assert sorted(own) == sorted(shown)
    # Another caption may describe the same image: with three captions an image, about 2 of 47 do.
    assert sum(a == b for a, b in zip(own, shown, strict=True)) <= 6
