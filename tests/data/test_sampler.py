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


def captions_of(batches: Sequence[Sequence[tuple[int, int]]]) -> list[list[int]]:
    return [[caption for caption, _ in batch] for batch in batches]


@settings(deadline=None, max_examples=60)
@given(cases(), st.integers(0, 5))
def test_an_epoch_shows_distinct_captions_in_whole_batches(case: Case, epoch: int) -> None:
    sampler = case.sampler(world_size=1)
    sampler.set_position(epoch)
    batches = list(sampler)
    assert batches == list(sampler), "the same seed and epoch give the same ones"
    assert len(batches) == len(sampler) == len(case.lengths) // case.batch_size
    assert {len(batch) for batch in batches} == {case.batch_size}
    shown = [caption for batch in captions_of(batches) for caption in batch]
    assert len(set(shown)) == len(shown) and set(shown) <= set(range(len(case.lengths)))
    assert {number for batch in batches for _, number in batch} == {epoch}


@settings(deadline=None, max_examples=60)
@given(cases(), st.data())
def test_any_number_of_ranks_shares_the_batches_of_one_and_resumes_at_any(case: Case, data: st.DataObject) -> None:
    """So the order of training does not depend on the number of ranks."""
    alone = case.sampler(world_size=1)
    alone.set_position(3)
    done = data.draw(st.integers(0, len(alone)))
    left = list(alone)[done:]
    alone.set_position(3, done)
    saved = json.loads(json.dumps(alone.state_dict()))
    shares = []
    for rank in range(case.world_size):
        resumed = case.sampler(rank)
        resumed.load_state_dict(saved)
        shares.append(list(resumed))
    assert {len(share) for batches in shares for share in batches} <= {case.batch_size // case.world_size}
    together = [sorted(sum(batch, [])) for batch in zip(*shares, strict=True)]  # noqa: RUF017 (a handful)
    assert together == [sorted(batch) for batch in left]


def test_epochs_and_seeds_differ_and_every_caption_is_shown_sooner_or_later() -> None:
    """Those that an incomplete last batch leaves out differ from epoch to epoch."""
    orders, shown = set(), set[int]()
    for seed in range(3):
        sampler = BucketBatchSampler([10] * 42, 4, seed)
        for epoch in range(8):
            sampler.set_position(epoch)
            batches = captions_of(list(sampler))
            orders.add(str(batches))
            shown |= {caption for batch in batches for caption in batch}
    assert len(orders) == 24 and shown == set(range(42))


def padding_of(sampler: BucketBatchSampler) -> int:
    lengths = [[int(sampler.lengths[caption]) for caption in batch] for batch in captions_of(list(sampler))]
    return sum(max(batch) * len(batch) - sum(batch) for batch in lengths)


def test_batches_hold_captions_of_similar_length_and_come_in_random_order() -> None:
    lengths = np.random.default_rng(0).integers(6, 1000, 640).tolist()
    unsorted, bucketed = BucketBatchSampler(lengths, 8, 0, bucket_size=1), BucketBatchSampler(lengths, 8, 0, 16)
    assert padding_of(bucketed) < 0.25 * padding_of(unsorted)
    one_bucket = BucketBatchSampler(list(range(100)), 4, seed=0, bucket_size=25)
    firsts = [min(batch) for batch in captions_of(list(one_bucket))]
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


@pytest.mark.parametrize(
    ("batch_size", "said"), [(6, "6 is no multiple of the 4 ranks"), (24, "24 exceeds the 20 training captions")]
)
def test_a_batch_that_cannot_be_shared_or_filled_is_refused(batch_size: int, said: str) -> None:
    with pytest.raises(UserError, match=rf"training\.batch_size {said}"):
        BucketBatchSampler([9] * 20, batch_size, 0, world_size=4)
