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
    folder: Path, num_captions: int, num_frames: tuple[int, int], side: int, splits: Sequence[str] = ("train",)
) -> PreparedCorpus:
    """Captions of these splits in turn, uniformly between so many frames long, each with an image of side * side."""
    chance = np.random.default_rng(0)
    plan = Plan(
        name="made up",
        held_out="images",
        num_shards=1,
        images="resized",
        short_side=side,
        features=None,
        content="",
        notes=[],
    )
    writer, frame_sums = ShardWriter({"plan": plan.of_shards, "features": FEATURES}), np.zeros(())
    for number, length in enumerate(chance.integers(*num_frames, num_captions, endpoint=True)):
        frames = chance.standard_normal((length, FEATURES["coefficients"]), np.float32)
        image = Image.fromarray(chance.integers(0, 256, (side, side, 3), np.uint8))
        frame_sums = frame_sums + sums_of(frames)
        caption = SpokenCaption(f"caption-{number}", f"image-{number}", "", "", splits[number % len(splits)])
        writer.add(caption, frames, encode(image, lossless=False))
    pixel_sums = sums_of(chance.random((2, 3)))
    writer.attributes |= {"pixel_sums": pixel_sums.tolist(), "frame_sums": frame_sums.tolist()}
    writer.write(shard_path(folder, 0))
    plan.write(folder / "plan.json")
    finish(folder)
    return PreparedCorpus.open(folder)
