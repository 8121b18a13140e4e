"""A prepared corpus of noise, whose captions have the lengths and images the sizes that are asked for."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from sia.data.corpus_record import Plan, sums_of
from sia.data.images import encode
from sia.data.manifest import SpokenCaption
from sia.data.mfcc import FEATURES
from sia.data.prepare import finish
from sia.data.prepared_corpus import PreparedCorpus
from sia.data.shards import ShardWriter, shard_path


def make_up(
    folder: Path,
    num_captions: int,
    num_frames: tuple[int, int],
    side: int,
    splits: Sequence[str] = ("train",),
    lossless: bool = False,
    num_shards: int = 1,
) -> PreparedCorpus:
    """Captions of these splits in turn, uniformly between so many frames long, each with an image of side * side.

    The images are JPEGs or, lossless, PNGs.
    """
    chance = np.random.default_rng(0)
    plan = Plan(
        name="made up",
        held_out="images",
        num_shards=num_shards,
        images="resized",
        short_side=side,
        features=None,
        content="",
        notes=[],
    )
    pixel_sums = sums_of(chance.random((2, 3)))
    for shard, numbers in enumerate(np.array_split(np.arange(num_captions), num_shards)):
        writer, frame_sums = ShardWriter({"plan": plan.of_shards, "features": FEATURES}), np.zeros(())
        for number, length in zip(numbers, chance.integers(*num_frames, len(numbers), endpoint=True), strict=True):
            frames = chance.standard_normal((length, FEATURES["coefficients"]), np.float32)
            frame_sums = frame_sums + sums_of(frames)
            caption = SpokenCaption(f"caption-{number}", f"image-{number}", "", "", splits[number % len(splits)])
            writer.add(caption, frames, encode(blurred(chance, side, side), lossless))
        writer.attributes |= {"pixel_sums": pixel_sums.tolist(), "frame_sums": frame_sums.tolist()}
        writer.write(shard_path(folder, shard))
    plan.write(folder / "plan.json")
    finish(folder)
    return PreparedCorpus.open(folder)


def blurred(chance: np.random.Generator, width: int, height: int) -> Image.Image:
    """An image of soft spots, which is compressed about as well as a photograph."""
    spots = Image.fromarray(chance.integers(0, 256, (24, 24, 3), np.uint8))
    return spots.resize((width, height), Image.Resampling.BICUBIC)
