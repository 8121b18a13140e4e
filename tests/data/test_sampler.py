"""The sampler's promises for any corpus, batch and number of ranks."""

import json
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sia.data.sampler import BucketBatchSampler
from sia.errors import UserError


class Case(NamedTuple):
    lengths: list[int]
    batch_size: int
    world_size: int
    seed: int
    bucket_size: int

    def sampler(self, rank: int = 0, world_size: int | None = None) -> BucketBatchSampler:
        world_size = self.world_size if world_size is None else world_size
        return BucketBatchSampler(self.lengths, self.batch_size, self.seed, self.bucket_size, rank, world_size)


@st.composite
def cases(draw: st.DrawFn) -> Case:
    world_size = draw(st.integers(1, 4))
    batch_size = world_size * draw(st.integers(1, 5))
    lengths = draw(st.lists(st.integers(6, 50), min_size=batch_size, max_size=80))
    return Case(lengths, batch_size, world_size, draw(st.integers(0, 99)), draw(st.integers(1, 5)))


def epoch_of(sampler: BucketBatchSampler) -> list[list[tuple[int, int]]]:
    return list(sampler)


def captions_of(batches: Sequence[Sequence[tuple[int, int]]]) -> list[list[int]]:
    return [[caption for caption, _ in batch] for batch in batches]


FREE = settings(deadline=None, max_examples=60)


@FREE
@given(cases(), st.integers(0, 5))
def test_an_epoch_shows_distinct_captions_in_whole_batches(case: Case, epoch: int) -> None:
    sampler = case.sampler(world_size=1)
    sampler.set_position(epoch)
    batches = epoch_of(sampler)
    assert len(batches) == len(sampler) == len(case.lengths) // case.batch_size
    assert {len(batch) for batch in batches} == {case.batch_size}
    shown = [caption for batch in captions_of(batches) for caption in batch]
    assert len(set(shown)) == len(shown) and set(shown) <= set(range(len(case.lengths)))
    assert {number for batch in batches for _, number in batch} == {epoch}


@FREE
@given(cases())
def test_the_ranks_share_the_batches_that_one_rank_has(case: Case) -> None:
    """So the order of training does not depend on the number of ranks."""
    alone = captions_of(epoch_of(case.sampler(world_size=1)))
    ranks = [captions_of(epoch_of(case.sampler(rank))) for rank in range(case.world_size)]
    assert [len(shares) for shares in ranks] == [len(alone)] * case.world_size
    for batch, shares in zip(alone, zip(*ranks, strict=True), strict=True):
        assert {len(share) for share in shares} == {case.batch_size // case.world_size}
        assert sorted(caption for share in shares for caption in share) == sorted(batch)


@FREE
@given(cases(), st.data())
def test_resumes_at_any_batch_on_any_number_of_ranks(case: Case, data: st.DataObject) -> None:
    whole = case.sampler(world_size=1)
    whole.set_position(3)
    done = data.draw(st.integers(0, len(whole)))
    left = epoch_of(whole)[done:]
    whole.set_position(3, done)
    saved = json.loads(json.dumps(whole.state_dict()))
    shares = []
    for rank in range(case.world_size):
        resumed = case.sampler(rank)
        resumed.load_state_dict(saved)
        shares.append(epoch_of(resumed))
    together = [sorted(sum(batch, [])) for batch in zip(*shares, strict=True)]  # noqa: RUF017 (a handful)
    assert together == [sorted(batch) for batch in left]


@FREE
@given(cases())
def test_the_same_seed_and_epoch_give_the_same_batches(case: Case) -> None:
    assert epoch_of(case.sampler()) == epoch_of(case.sampler())


def test_epochs_and_seeds_differ() -> None:
    orders = set()
    for seed in range(3):
        sampler = BucketBatchSampler(list(range(6, 46)), 4, seed)
        for epoch in range(5):
            sampler.set_position(epoch)
            orders.add(str(captions_of(epoch_of(sampler))))
    assert len(orders) == 15


def test_every_caption_is_shown_sooner_or_later() -> None:
    """Those that an incomplete last batch leaves out differ from epoch to epoch."""
    sampler, shown = BucketBatchSampler([10] * 11, 4, seed=0), set()
    for epoch in range(20):
        sampler.set_position(epoch)
        shown |= {caption for batch in captions_of(epoch_of(sampler)) for caption in batch}
    assert shown == set(range(11))


def padding_of(sampler: BucketBatchSampler) -> int:
    lengths = [[int(sampler.lengths[caption]) for caption in batch] for batch in captions_of(epoch_of(sampler))]
    return sum(max(batch) * len(batch) - sum(batch) for batch in lengths)


def test_batches_hold_captions_of_similar_length() -> None:
    lengths = np.random.default_rng(0).integers(6, 1000, 640).tolist()
    unsorted, bucketed = BucketBatchSampler(lengths, 8, 0, bucket_size=1), BucketBatchSampler(lengths, 8, 0, 16)
    assert padding_of(bucketed) < 0.25 * padding_of(unsorted)


def test_one_bucket_of_all_is_sorted() -> None:
    sampler = BucketBatchSampler([9, 6, 8, 7], 2, seed=0, bucket_size=2)
    assert sorted(sorted(batch) for batch in captions_of(epoch_of(sampler))) == [[0, 2], [1, 3]]


def test_long_and_short_batches_come_in_random_order() -> None:
    sampler = BucketBatchSampler(list(range(100)), 4, seed=0, bucket_size=25)
    firsts = [min(batch) for batch in captions_of(epoch_of(sampler))]
    assert firsts != sorted(firsts) and sorted(firsts) == list(range(0, 100, 4))


@pytest.mark.parametrize(
    ("key", "other"),
    [
        ("batch_size", BucketBatchSampler([9] * 20, 5, 0)),
        ("seed", BucketBatchSampler([9] * 20, 4, 1)),
        ("bucket_size", BucketBatchSampler([9] * 20, 4, 0, bucket_size=3)),
        ("num_captions", BucketBatchSampler([9] * 21, 4, 0)),
    ],
)
def test_the_state_of_another_order_is_refused(key: str, other: BucketBatchSampler) -> None:
    with pytest.raises(UserError, match=key):
        BucketBatchSampler([9] * 20, 4, 0).load_state_dict(other.state_dict())


def test_a_batch_that_the_ranks_cannot_share_is_refused() -> None:
    with pytest.raises(UserError, match=r"training\.batch_size 6 is no multiple of the 4 ranks"):
        BucketBatchSampler([9] * 20, 6, 0, world_size=4)


def test_a_batch_larger_than_the_corpus_is_refused() -> None:
    with pytest.raises(UserError, match=r"training\.batch_size 21 exceeds the 20 training captions"):
        BucketBatchSampler([9] * 20, 21, 0)
