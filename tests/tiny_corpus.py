"""A corpus that a small pair learns in seconds: two tones that sound together name the two colours of an image.

Registered as the corpus `tiny`; its folder holds captions.jsonl, held_out.txt, and the files that these name.
"""

import colorsys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from PIL import Image

from sia.config import Experiment, Stage, resolve
from sia.data.corpora import READERS
from sia.data.manifest import HeldOut, Reading, SpokenCaption, read_captions, write_captions
from sia.data.prepare import finish, plan, write_shard
from sia.data.prepared_corpus import PreparedCorpus
from sia.schedules import Calr

RATE = 16_000
SIDE = 32
KINDS = 8  # of either tone and either colour: 64 distinct images a split
CAPTIONS = {"train": 2, "validation": 1, "test": 1}  # of an image


def read(root: Path) -> Reading:
    """The corpus's reader, in the place of those in sia/data/corpora."""
    held_out: Any = (root / "held_out.txt").read_text()
    return Reading(read_captions(root / "captions.jsonl"), [], held_out)


def experiment(*stages: Stage, **dotted: Any) -> Experiment:
    """A pair of some thousand weights, on this corpus."""
    small = {
        "model": {"latent_size": 16, "gru_layers": 1},
        "model.image": {"blocks": [1, 1], "growth_rate": 8, "initial_features": 8},
        "data": {"corpus": "tiny", "crop_size": SIDE - 2, "short_side": SIDE, "flip_probability": 0.0},
        "optimizer": {"learning_rate": 3e-3},
        "training": {"batch_size": 16, "precision": "float32", "train_recall_sample": 0},
        "stages": [stage.model_dump() for stage in stages or (Stage(epochs=5, schedule=Calr()),)],
        "runtime": {"num_workers": 0, "log_every_seconds": 1000.0},
    }
    return resolve(small, dotted, source="test")


def write_corpus(root: Path, kinds: int = KINDS, captions: Mapping[str, int] = CAPTIONS) -> list[SpokenCaption]:
    """kinds * kinds images a split, each with so many captions."""
    written = []
    for split, count in captions.items():
        for first in range(kinds):
            for second in range(kinds):
                image_id = f"{split}-{first}-{second}"
                draw(root / f"{image_id}.png", first, second, seed=len(written))
                for number in range(count):
                    name = f"{image_id}-{number}"
                    speak(root / f"{name}.wav", first, second, seed=len(written))
                    written.append(caption(root, name, image_id, split))
    describe(root, written)
    return written


def caption(root: Path, name: str, image_id: str, split: str = "train") -> SpokenCaption:
    return SpokenCaption(name, image_id, str(root / f"{name}.wav"), str(root / f"{image_id}.png"), split)


def describe(root: Path, captions: list[SpokenCaption], held_out: HeldOut = "images") -> None:
    write_captions(root / "captions.jsonl", captions)
    (root / "held_out.txt").write_text(held_out)


def prepare(
    root: Path, out: Path, num_shards: int = 2, short_side: int = SIDE, replace: bool = False
) -> PreparedCorpus:
    """As jobs/prepare.py does it, in this process."""
    begin(root, out, num_shards, short_side, replace=replace)
    for number in range(num_shards):
        write_shard(out, number)
    finish(out, replace)
    return PreparedCorpus.open(out)


def begin(
    root: Path,
    out: Path,
    num_shards: int = 2,
    short_side: int = SIDE,
    limit: int | None = None,
    replace: bool = False,
) -> None:
    """The first step alone: the plan of the shards."""
    with _registered():
        plan("tiny", root, out, num_shards, short_side, limit, replace=replace)


def speak(path: Path, first: int, second: int, seed: int) -> None:
    chance = np.random.default_rng([1, seed])
    time = np.arange(int(RATE * chance.uniform(0.15, 0.3))) / RATE
    low, high = 250 * 1.25**first, 2000 * 1.18**second
    wave = 0.3 * np.sin(2 * np.pi * low * time) + 0.3 * np.sin(2 * np.pi * high * time)
    record(path, wave + chance.normal(0, 0.01, len(time)))


def record(path: Path, wave: np.ndarray, rate: int = RATE) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, wave.astype(np.float32), rate, subtype="FLOAT")


def draw(path: Path, first: int, second: int, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    array = np.empty((SIDE, SIDE, 3))
    array[:, : SIDE // 2] = colorsys.hsv_to_rgb(first / KINDS, 1.0, 1.0)
    array[:, SIDE // 2 :] = second / (KINDS - 1)
    noisy = array * 255 + np.random.default_rng([2, seed]).normal(0, 3, array.shape)
    Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(path)


@contextmanager
def _registered() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(READERS, "tiny", __name__)
        yield
