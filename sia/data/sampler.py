"""Which captions make which batch, decided by seed and epoch alone; it touches no file.

Batches are global: the ranks share one batch's captions, so that the order of training does not depend on how many
ranks there are, and a run may go on with another number of them.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from sia.errors import UserError


class BucketBatchSampler:
    """Shuffled batches of captions of similar length, this rank's share of each; resumable at any batch.

    Iterating yields lists of (caption index, epoch) for the rest of the current epoch.
    """

    def __init__(
        self,
        lengths: Sequence[int],
        batch_size: int,
        seed: int,
        bucket_size: int = 16,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        """lengths: frames of each caption; batch_size: captions a step over all ranks; bucket_size: in batches.

        Raises UserError for a batch that the ranks cannot share equally, or that is larger than the corpus.
        """
        check_batch_size(batch_size, len(lengths), world_size)
        self.lengths = np.asarray(lengths)
        self.batch_size, self.seed, self.bucket_size = batch_size, seed, bucket_size
        self.rank, self.world_size = rank, world_size
        self.epoch = 0
        self.next_batch = 0

    def __len__(self) -> int:
        """Batches of a whole epoch; an incomplete last one is left out, other captions each epoch."""
        return len(self.lengths) // self.batch_size

    def set_position(self, epoch: int, next_batch: int = 0) -> None:
        self.epoch, self.next_batch = epoch, next_batch

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        for batch in self.global_batches(self.epoch)[self.next_batch :]:
            # Every world_size-th caption: the ranks' shares are of about the same lengths.
            yield [(int(index), self.epoch) for index in batch[self.rank :: self.world_size]]

    def global_batches(self, epoch: int) -> np.ndarray:
        """The caption indices [batches, batch_size] of an epoch, over all ranks."""
        chance = np.random.default_rng([self.seed, epoch])
        order = chance.permutation(len(self.lengths))[: len(self) * self.batch_size]
        width = self.bucket_size * self.batch_size
        buckets = [order[start : start + width] for start in range(0, len(order), width)]
        by_length = [bucket[np.argsort(self.lengths[bucket], kind="stable")] for bucket in buckets]
        batches = np.concatenate(by_length).reshape(-1, self.batch_size)
        return batches[chance.permutation(len(batches))]

    def state_dict(self) -> dict[str, Any]:
        return {"epoch": self.epoch, "next_batch": self.next_batch, **self._order()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Raises UserError where the state belongs to another order of captions."""
        for key, value in self._order().items():
            if state[key] != value:
                raise UserError(f"checkpoint's sampler has {key} {state[key]}, now it is {value}; resume with the same")
        self.set_position(state["epoch"], state["next_batch"])

    def _order(self) -> dict[str, int]:
        """What decides the order of captions."""
        return {
            "batch_size": self.batch_size,
            "seed": self.seed,
            "bucket_size": self.bucket_size,
            "num_captions": len(self.lengths),
        }


def check_batch_size(batch_size: int, num_captions: int | None, world_size: int) -> None:
    """Raises UserError for a batch that the ranks cannot share equally, or that is larger than the corpus.

    num_captions: of training; None where nobody knows yet.
    """
    if batch_size % world_size:
        raise UserError(f"training.batch_size {batch_size} is no multiple of the {world_size} ranks; choose one")
    if num_captions is not None and batch_size > num_captions:
        raise UserError(f"training.batch_size {batch_size} exceeds the {num_captions} training captions; lower it")


def check_chunk_size(chunk_size: int | None, world_size: int) -> None:
    """Raises UserError for chunks of which some ranks would have no caption."""
    if chunk_size is not None and chunk_size < world_size:
        raise UserError(f"training.chunk_size {chunk_size} is less than the {world_size} ranks that share it; raise it")
