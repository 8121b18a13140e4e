"""Captions of a prepared corpus to padded batches.

Letters: B captions, T frames of the longest, F numbers a frame (40 MFCCs), H and W pixels.
"""

import io
import multiprocessing
import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from sia.config import Experiment
from sia.data.images import batched, centre_view, decode, pixels, random_view, read_image, resize_short_side
from sia.data.prepared_corpus import PreparedCorpus
from sia.data.sampler import BucketBatchSampler
from sia.orphans import end_with


class Batch(NamedTuple):
    """Aligned pairs: caption b describes image b."""

    frames: Tensor  # [B, T, F] of float32, padded with zeros
    num_frames: Tensor  # [B]
    images: Tensor  # [B, 3, H, W] of uint8, channels last in memory
    image_ids: Tensor  # [B], equal for captions of the same image


Pair = tuple[np.ndarray, np.ndarray, int]  # frames [T, F], view [H, W, 3], number of the image


class PairDataset(Dataset[Any]):
    """Training pairs with randomly cropped and flipped images, indexed by (caption of the split, epoch)."""

    def __init__(self, corpus: PreparedCorpus, experiment: Experiment) -> None:
        self.corpus, self.data, self.seed = corpus, experiment.data, experiment.training.seed
        self.captions = np.array(corpus.split("train"), np.int32)
        # For each image of the split one of its captions, and for each caption the number of its image.
        images = corpus.captions.column("image")[self.captions]
        _, first, numbers = np.unique(images, return_index=True, return_inverse=True)
        self.image_numbers = numbers.astype(np.int32)
        self.shown_numbers = np.arange(len(first), dtype=np.int32)
        if self.data.shuffle_pairs:
            self.shown_numbers = shuffled_pairs(len(first), self.seed)
        self.caption_of_image = self.captions[first]
        runtime = experiment.runtime
        self.kept = KeptImages(runtime.image_cache_gb / max(runtime.num_workers, 1))

    @property
    def lengths(self) -> list[int]:
        return self.corpus.captions.column("num_frames")[self.captions].tolist()

    def name(self, position: int) -> str:
        """The utterance id of a caption of the split."""
        return self.corpus.captions[int(self.captions[position])].utterance_id

    def __getitem__(self, place: tuple[int, int]) -> Pair:
        position, epoch = place
        index = int(self.captions[position])
        shown = int(self.shown_numbers[self.image_numbers[position]])
        if (image := self.kept.get(shown)) is None:
            image = decoded(self.corpus, int(self.caption_of_image[shown]), self.data.short_side)
            self.kept.add(shown, image)
        key = f"{self.seed}/{epoch}/{self.corpus.captions.utterance_id(index)}"
        view = random_view(image, self.data.crop_size, self.data.flip_probability, key)
        return speech_frames(self.corpus, index, self.data.standardise_frames), view, shown


class KeptImages(dict[int, np.ndarray]):
    """Decoded images by number, as many as fit; a copy for another process begins empty.

    The first ones stay: an epoch shows each image as often as any other, so that none is worth another's place.
    """

    def __init__(self, gigabytes: float) -> None:
        super().__init__()
        self.gigabytes, self.free = gigabytes, gigabytes * 1e9

    def add(self, number: int, image: np.ndarray) -> None:
        if image.nbytes <= self.free:
            self[number] = image
            self.free -= image.nbytes

    def __reduce__(self) -> tuple[type["KeptImages"], tuple[float]]:
        return KeptImages, (self.gigabytes,)


def speech_batches(
    corpus: PreparedCorpus, indices: Sequence[int], batch_size: int, standardise: bool
) -> Iterator[tuple[Tensor, Tensor]]:
    """The frames [B, T, F] of chosen captions, and their valid numbers [B], for embedding."""
    for start in range(0, len(indices), batch_size):
        yield pad([speech_frames(corpus, index, standardise) for index in indices[start : start + batch_size]])


def image_batches(
    corpus: PreparedCorpus, indices: Sequence[int], batch_size: int, crop_size: int, short_side: int
) -> Iterator[Tensor]:
    """The centre crops [B, 3, H, W] of chosen captions' images, for embedding; short_side: as of `decoded`."""
    for start in range(0, len(indices), batch_size):
        shown = [decoded(corpus, index, short_side) for index in indices[start : start + batch_size]]
        yield batched([centre_view(image, crop_size) for image in shown])


def speech_frames(corpus: PreparedCorpus, index: int, standardise: bool) -> np.ndarray:
    """A caption's frames [T, F]; standardised, each coefficient has mean 0 and deviation 1 over the training split."""
    frames = corpus.frames(index)
    if standardise:
        mean, std = corpus.frame_statistics
        frames -= mean
        frames /= std
    return frames


def decoded(corpus: PreparedCorpus, index: int, short_side: int) -> np.ndarray:
    """The pixels [H, W, 3] of a caption's image; of an original file, resized to a short side of so many.

    Raises UserError that names the caption where they are damaged.
    """
    stored = corpus.image(index)
    if corpus.description.short_side is not None:
        # As the preparation encoded it: upright, in RGB.
        return pixels(decode(stored))
    name = f"{corpus.folder}: image of {corpus.captions.utterance_id(index)!r}"
    return pixels(resize_short_side(read_image(io.BytesIO(stored), name), short_side))


def pad(frames: Sequence[np.ndarray | Tensor]) -> tuple[Tensor, Tensor]:
    """Captions' frames [T_b, F] -> padded frames [B, T, F] and their valid numbers [B]."""
    num_frames = [len(caption) for caption in frames]
    padded = np.zeros((len(frames), max(num_frames), frames[0].shape[1]), np.float32)
    for row, caption in zip(padded, frames, strict=True):
        row[: len(caption)] = caption
    return torch.from_numpy(padded), torch.tensor(num_frames)


def collate(pairs: Sequence[Pair]) -> Batch:
    frames, views, image_ids = zip(*pairs, strict=True)
    return Batch(*pad(frames), batched(views), torch.tensor(image_ids))


def training_loader(
    dataset: PairDataset, sampler: BucketBatchSampler, num_workers: int, pin: bool
) -> DataLoader[Batch]:
    return DataLoader(
        dataset,
        batch_sampler=sampler,
        collate_fn=collate,
        num_workers=num_workers,
        pin_memory=pin,
        persistent_workers=num_workers > 0,
        # Without one of its own, each iteration would move the random state that a checkpoint restores.
        generator=torch.Generator().manual_seed(dataset.seed),
        # A fork would inherit the threads and locks of NCCL and HDF5.
        multiprocessing_context="spawn" if num_workers else None,
        # torch's own watch asks who the parent is when the worker has begun: too late where that died meanwhile.
        worker_init_fn=partial(_begin_worker, os.getpid()) if num_workers else None,
    )


def told_of_the_killed(batches: Iterator[Batch]) -> Iterator[Batch]:
    """The batches of a loader. Raises RuntimeError, as torch mostly does, in every case of a worker that was killed.

    A worker that dies while it hands a tensor over is otherwise an error of a connection.
    """
    try:
        yield from batches
    except (OSError, EOFError) as error:
        for worker in getattr(batches, "_workers", []):
            worker.join(1.0)
            if worker.exitcode in (-signal.SIGKILL, -signal.SIGTERM):
                raise RuntimeError(f"DataLoader worker (pid {worker.pid}) is killed by signal") from error
        raise


@contextmanager
def no_worker_left_on_error() -> Iterator[None]:
    """Kill workers that were started meanwhile: at its exit this process waits for them, who hear no SIGTERM."""
    before = multiprocessing.active_children()
    try:
        yield
    except BaseException:
        for worker in multiprocessing.active_children():
            if worker not in before:
                worker.kill()
        raise


def _begin_worker(trainer: int, number: int) -> None:
    end_with(trainer)


def shuffled_pairs(count: int, seed: int) -> np.ndarray:
    """A seeded permutation [count] without a fixed point: a wrong image for each image, for a control run."""
    order = np.random.default_rng([seed, count]).permutation(count)
    wrong = np.empty(count, dtype=np.int64)
    wrong[order] = np.roll(order, 1)
    return wrong
