"""Training batches: ours, of a prepared corpus, against one .npy and one .png a caption; without loader workers."""

import random
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import DataLoader, Dataset

from sia.benchmark.harness import Action, Comparison, in_turn, peaks_mb
from sia.benchmark.made_up_corpus import make_up
from sia.config import resolve
from sia.data.loader import PairDataset, training_loader
from sia.data.prepared_corpus import PreparedCorpus
from sia.data.sampler import BucketBatchSampler

BATCH_SIZE = 64
FRAMES, SIDE, CROP = (135, 210), 72, 64  # those of the embedded corpus
FEW_FRAMES, SMALL = (6, 12), 16  # of the corpus whose size is its number of captions


def compare(num_captions: int, turns: int) -> Comparison:
    """An epoch's batches."""
    with tempfile.TemporaryDirectory() as folder:
        corpus = make_up(Path(folder), num_captions, FRAMES, SIDE, lossless=True)
        write_files(corpus, Path(folder) / "files")
        sides = {
            "ours": partial(ours, Path(folder)),
            "a file each": partial(plain, Path(folder) / "files"),
            "ours, images kept": partial(ours, Path(folder), image_cache_gb=1.0),
        }
        compared = in_turn(f"{num_captions:,} captions of 1.7 to 2.6 s with PNGs of {SIDE} px, no worker", sides, turns)
        compared.memory_mb.update(peaks_mb(sides))
    return compared


def compare_large(num_shards: int, batches: int, turns: int) -> Comparison:
    """So many batches of a corpus of 1,000 captions a shard: what memory its size takes."""
    with tempfile.TemporaryDirectory() as folder:
        make_up(Path(folder), 1000 * num_shards, FEW_FRAMES, SMALL, lossless=True, num_shards=num_shards)
        sides = {"ours": partial(ours, Path(folder), side=SMALL, crop=SMALL, batches=batches)}
        compared = in_turn(f"{batches} batches of {1000 * num_shards:,} captions in {num_shards} shards", sides, turns)
        compared.memory_mb.update(peaks_mb(sides))
    return compared


def ours(
    folder: Path, side: int = SIDE, crop: int = CROP, batches: int | None = None, image_cache_gb: float = 0.0
) -> Action:
    data = {"folder": str(folder), "short_side": side, "crop_size": crop}
    values = {"data": data, "runtime": {"image_cache_gb": image_cache_gb}, "stages": [{"epochs": 1}]}
    dataset = PairDataset(PreparedCorpus.open(folder), resolve(values, {}, source="the benchmark"))
    sampler = BucketBatchSampler(dataset.lengths, BATCH_SIZE, seed=0)
    return partial(run_through, training_loader(dataset, sampler, num_workers=0, pin=False), batches)


def plain(folder: Path) -> Action:
    loader: DataLoader[Any] = DataLoader(
        Files(folder), BATCH_SIZE, shuffle=True, collate_fn=pad_together, drop_last=True
    )
    return partial(run_through, loader, None)


def run_through(loader: DataLoader[Any], batches: int | None) -> None:
    for number, _ in enumerate(loader, start=1):
        if number == batches:
            break


def write_files(corpus: PreparedCorpus, folder: Path) -> None:
    folder.mkdir()
    for index in range(len(corpus.captions)):
        np.save(folder / f"{index}.npy", corpus.frames(index))
        (folder / f"{index}.png").write_bytes(corpus.image(index))


class Files(Dataset[Any]):
    """Frames [T, 40] and a random crop [3, H, W], flipped or not, of each .npy with its .png."""

    def __init__(self, folder: Path) -> None:
        self.paths = sorted(folder.glob("*.npy"))

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, number: int) -> tuple[Tensor, Tensor]:
        frames = torch.from_numpy(np.load(self.paths[number]))
        with Image.open(self.paths[number].with_suffix(".png")) as image:
            pixels = np.array(image.convert("RGB"))
        top, left = (random.randint(0, length - CROP) for length in pixels.shape[:2])
        view = torch.from_numpy(pixels[top : top + CROP, left : left + CROP]).permute(2, 0, 1)
        return frames, view.flip(2) if random.random() < 0.5 else view


def pad_together(pairs: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor, Tensor]:
    frames, images = zip(*pairs, strict=True)
    lengths = torch.tensor([len(one) for one in frames])
    return pad_sequence(list(frames), batch_first=True), lengths, torch.stack(images)


CASES = {"separate-files": partial(compare, 2048), "400-shards": partial(compare_large, 400, 200)}
