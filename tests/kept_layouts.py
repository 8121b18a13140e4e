"""A corpus and a checkpoint in tests/fixtures, by the number of their layout: what they hold, and how they were made.

`PYTHONPATH=. python tests/kept_layouts.py`, once a layout. What an earlier one's program wrote is never written anew;
what reads it is mended instead.
"""

import lzma
import random
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import tiny_corpus
import torch
from PIL import Image

from sia.checkpoint.state import CHECKPOINT_VERSION, Progress, TrainingState, write_checkpoint
from sia.config import Experiment, Stage
from sia.data.sampler import BucketBatchSampler
from sia.data.shards import LAYOUT_VERSION
from sia.models.dual_encoder import DualEncoder

FIXTURES = Path(__file__).parent / "fixtures"
SIDE, HERTZ = 16, 440
SPLITS = {"train": 4, "validation": 2, "test": 2}  # captions, each of an image of its own
COLOURS = ((255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0))
READ = ("corpus.json", "captions.jsonl", "captions.npy", "dropped.jsonl", "shards")


def experiment(corpus: Path) -> Experiment:
    """The smallest pair there is, for two epochs."""
    dotted = {
        "data.folder": str(corpus),
        "data.short_side": SIDE,
        "data.crop_size": SIDE,
        "training.batch_size": 2,
        "model.latent_size": 2,
        "model.image.initial_features": 2,
        "model.image.growth_rate": 1,
    }
    return tiny_corpus.experiment(Stage(epochs=2), **dotted)


def wave_of(number: int) -> np.ndarray:
    return 0.3 * np.sin(2 * np.pi * HERTZ * (1 + number) * np.arange(1600) / tiny_corpus.RATE)


def write_corpus(folder: Path) -> None:
    with tempfile.TemporaryDirectory() as raw:
        captions = []
        for split, count in SPLITS.items():
            for number in range(count):
                one = tiny_corpus.caption(Path(raw), f"{split}-{number}-a", f"{split}-{number}", split)
                tiny_corpus.record(Path(one.speech_path), wave_of(number))
                Image.new("RGB", (SIDE, SIDE), COLOURS[number]).save(one.image_path)
                captions.append(replace(one, text=f"caption {number} of {split}"))
        tiny_corpus.describe(Path(raw), captions)
        prepared = tiny_corpus.prepare(Path(raw), Path(raw) / "prepared", num_shards=1, short_side=SIDE)
        for name in READ:
            copy = shutil.copytree if (prepared.folder / name).is_dir() else shutil.copy
            copy(prepared.folder / name, folder / name)


def value_of(number: int) -> float:
    """What all places of a weight hold, by its place among them: the file is small."""
    return (1 + number) / 64


def write_state(path: Path) -> None:
    """After the first of two epochs, of two steps each."""
    torch.manual_seed(0)
    random.seed(0)
    model = DualEncoder.from_config(experiment(FIXTURES).model)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, fused=True)
    for number, weight in enumerate(model.parameters()):
        torch.nn.init.constant_(weight, value_of(number))
        weight.grad = torch.full_like(weight, 1e-3)
    optimizer.step()
    for number, weight in enumerate(model.parameters()):
        torch.nn.init.constant_(weight, value_of(number))
    row = {"stage": 1, "epoch": 1, "stage_epoch": 1, "time": 1_700_000_000.0}
    row |= {"train/loss": 1.0, "train/learning_rate": 1e-3, "train/seconds": 1.0}
    row |= {f"validation/{way}/R_at_10": 1.0 for way in ("speech_to_image", "image_to_speech")}
    progress = Progress(1, epochs_done=1, step=2, seconds=1.0, best_value=1.0, best_epoch=1, rows=[row])
    settings = experiment(FIXTURES)
    sampler = BucketBatchSampler([9] * SPLITS["train"], 2, settings.training.seed, settings.data.bucket_size)
    sampler.set_position(1)
    state = TrainingState(model, optimizer, sampler, progress, settings.model)
    write_checkpoint(path, state.content())


if __name__ == "__main__":
    corpus, checkpoint = FIXTURES / f"corpus-{LAYOUT_VERSION}", FIXTURES / f"checkpoint-{CHECKPOINT_VERSION}.pt.xz"
    if not corpus.exists():
        corpus.mkdir()
        write_corpus(corpus)
    if not checkpoint.exists():
        with tempfile.TemporaryDirectory() as folder:
            write_state(Path(folder) / "last.pt")
            checkpoint.write_bytes(lzma.compress((Path(folder) / "last.pt").read_bytes(), preset=9))
