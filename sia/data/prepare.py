"""From a corpus as it lies on disk to a prepared one: plan, one task a shard, finish.

Each step may be killed and run again: what is whole is kept, what is not is not there.
"""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from sia.atomic import read_json, write_json, write_json_lines
from sia.data.corpora import read
from sia.data.manifest import Dropped, SpokenCaption, read_captions, write_captions, write_dropped
from sia.data.prepared import PlacedCaption, shard_path
from sia.data.shards import LAYOUT_VERSION, ShardReader, ShardWriter
from sia.errors import UserError
from sia.parameter_counts import MFCC_COEFFICIENTS

CAPTIONS_A_SHARD = 1000


def plan(name: str, root: Path, out: Path, num_shards: int | None, short_side: int, limit: int | None = None) -> int:
    """Read the corpus and write down which captions go to which shard; the number of shards.

    limit: take about so many captions, spread over the corpus, for a first try.

    All captions of an image go to the same shard, so that the image is stored once.
    """
    reading = read(name, root)
    captions = reading.captions[:: max(1, len(reading.captions) // limit)] if limit else reading.captions
    num_shards = num_shards or max(1, round(len(captions) / CAPTIONS_A_SHARD))
    parts = _share_by_image(captions, num_shards)
    content = hashlib.sha256()
    for number, part in enumerate(parts):
        content.update(json.dumps([asdict(caption) for caption in part]).encode())
        write_captions(_plan_path(out, number), part)
    write_dropped(out / "plan" / "dropped.jsonl", reading.dropped)
    record = {
        "name": name,
        "held_out": reading.held_out,
        "num_shards": num_shards,
        "short_side": short_side,
        "content": content.hexdigest()[:16],
    }
    if read_json(out / "plan.json") != record:
        (out / "corpus.json").unlink(missing_ok=True)
    write_json(out / "plan.json", record)
    return num_shards


def write_shard(out: Path, number: int) -> None:
    """The task of one shard: MFCC frames and resized images of its captions. A shard that is there already is kept.

    A caption that cannot be read, or whose frames are too few or too many, is dropped with its reason.
    """
    record = read_plan(out)
    if is_written(out, number):
        return
    import torch

    from sia.data.mfcc import FEATURES

    # Clips are short: more threads only wait for each other, and the tasks share the machine already.
    torch.set_num_threads(1)
    writer = ShardWriter({"plan": record, "features": FEATURES})
    pixels, features = Statistics(3), Statistics(MFCC_COEFFICIENTS)
    captions = read_captions(_plan_path(out, number))
    trained = {caption.image_id for caption in captions if caption.split == "train"}
    for caption in captions:
        try:
            frames = caption_frames(caption)
            counted = pixels if caption.image_id in trained else None
            image = writer.images.get(caption.image_id) or encoded_image(caption, record["short_side"], counted)
        except Unusable as error:
            writer.drop(caption.utterance_id, error.reason, error.detail)
        else:
            writer.add(caption, frames, image)
            if caption.split == "train":
                features.add(frames)
    writer.attributes |= {"pixel_sums": pixels.sums.tolist(), "frame_sums": features.sums.tolist()}
    writer.write(shard_path(out, number))


def finish(out: Path) -> dict[str, Any]:
    """Join the shards' records into captions.jsonl, dropped.jsonl and, last, corpus.json; its content is returned.

    Raises UserError where a shard is missing or no caption is left.
    """
    record = read_plan(out)
    captions, digests = [], []
    pixel_sums, frame_sums = np.zeros((3, 3)), np.zeros((3, MFCC_COEFFICIENTS))
    dropped = _read_dropped((out / "plan" / "dropped.jsonl").read_text(encoding="utf-8").split("\n")[:-1])
    for number in range(record["num_shards"]):
        shard = ShardReader(shard_path(out, number))
        captions += list(_placed(shard, number))
        digests += shard.strings("digests")
        dropped += _read_dropped(shard.strings("dropped"))
        pixel_sums += shard.attribute("pixel_sums")
        frame_sums += shard.attribute("frame_sums")
        features = shard.attribute("features")
        shard.close()
    if not captions:
        reason = f"; the first: {dropped[0].reason}, {dropped[0].detail}" if dropped else ""
        raise UserError(f"{out}: every caption of corpus {record['name']!r} was dropped{reason}")
    write_json_lines(out / "captions.jsonl", [asdict(caption) for caption in captions])
    write_dropped(out / "dropped.jsonl", dropped)
    description = _describe(record, features, captions, digests, dropped)
    description["pixel_mean"], description["pixel_std"] = mean_and_deviation(pixel_sums)
    description["frame_mean"], description["frame_std"] = mean_and_deviation(frame_sums)
    write_json(out / "corpus.json", description)
    return description


def is_written(out: Path, number: int) -> bool:
    """Whether the shard is there, whole, and of the plan as it is now."""
    try:
        shard = ShardReader(shard_path(out, number))
    except UserError:
        return False
    written = shard.attribute("plan") == read_plan(out)
    shard.close()
    return bool(written)


class Statistics:
    """Sums over the training split, from which the corpus's mean and deviation follow."""

    def __init__(self, width: int) -> None:
        self.sums = np.zeros((3, width))  # of ones, of values, of squares

    def add(self, rows: np.ndarray) -> None:
        """Rows [N, width]."""
        rows = rows.astype(np.float64)
        self.sums += [np.full(rows.shape[1], len(rows)), rows.sum(axis=0), (rows**2).sum(axis=0)]


def mean_and_deviation(sums: np.ndarray) -> tuple[list[float], list[float]]:
    """Statistics' sums [3, width] -> mean [width] and deviation [width]."""
    count = np.maximum(sums[0], 1)
    mean = sums[1] / count
    return mean.tolist(), np.sqrt(np.maximum(sums[2] / count - mean**2, 1e-12)).tolist()


class Unusable(UserError):
    """A caption that training cannot use: the reason that the summary counts, and the detail of this one."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason, self.detail = reason, detail


def caption_frames(caption: SpokenCaption) -> np.ndarray:
    """A caption's MFCC frames [T, 40]. Raises Unusable where they cannot be had, are too few or too many."""
    from sia.data.mfcc import MAX_FRAMES, MIN_FRAMES, mfcc, read_speech

    try:
        samples, rate = read_speech(caption.speech_path)
    except UserError as error:
        raise Unusable("unreadable speech", str(error)) from None
    try:
        frames = mfcc(samples, rate).numpy()
    except ValueError as error:
        raise Unusable("too short speech", f"{caption.speech_path}: {error}") from None
    if len(frames) < MIN_FRAMES:
        raise Unusable("too short speech", f"{caption.speech_path}: {len(frames)} frames, fewer than {MIN_FRAMES}")
    if len(frames) > MAX_FRAMES:
        raise Unusable(f"more than {MAX_FRAMES} frames", f"{caption.speech_path}: {len(frames)} frames")
    if not np.isfinite(frames).all():
        raise Unusable("unreadable speech", f"{caption.speech_path}: samples that are no numbers")
    return frames


def encoded_image(caption: SpokenCaption, short_side: int, statistics: Statistics | None) -> bytes:
    """A caption's image, resized to `short_side` pixels, counted and encoded; a JPEG stays one. Raises Unusable."""
    from sia.data.images import encode, pixels, read_image, resize_short_side

    try:
        image = resize_short_side(read_image(caption.image_path), short_side)
    except UserError as error:
        raise Unusable("unreadable image", str(error)) from None
    if statistics is not None:
        statistics.add(pixels(image).reshape(-1, 3) / 255)
    return encode(image, lossless=not caption.image_path.lower().endswith((".jpg", ".jpeg")))


def read_plan(out: Path) -> dict[str, Any]:
    record = read_json(out / "plan.json")
    if record is None:
        raise UserError(f"{out}: no plan.json; run `python jobs/prepare.py` from its start")
    return record


def summary(description: dict[str, Any]) -> str:
    """What was prepared and what was dropped, in lines for a person."""
    counts = description["num_captions"]
    lines = [
        f"corpus {description['name']}, identity {description['identity']}: "
        + ", ".join(f"{count:,} {split}" for split, count in counts.items())
        + f" captions of {description['num_images']:,} images, {description['hours']:.2f} h of speech"
    ]
    for reason, count in description["dropped"].items():
        lines.append(f"  dropped {count:,}: {reason} (each is listed in dropped.jsonl)")
    return "\n".join(lines)


def _share_by_image(captions: list[SpokenCaption], num_shards: int) -> list[list[SpokenCaption]]:
    by_image: dict[str, list[SpokenCaption]] = {}
    for caption in captions:
        by_image.setdefault(caption.image_id, []).append(caption)
    parts: list[list[SpokenCaption]] = [[] for _ in range(num_shards)]
    for position, group in enumerate(by_image.values()):
        parts[position * num_shards // len(by_image)] += group
    return parts


def _plan_path(out: Path, number: int) -> Path:
    return out / "plan" / f"{number:05d}.jsonl"


def _placed(shard: ShardReader, number: int) -> Iterator[PlacedCaption]:
    row_of_image = {image_id: row for row, image_id in enumerate(shard.strings("image_ids"))}
    lengths = np.diff(shard.frame_offsets)
    for row, line in enumerate(shard.strings("captions")):
        caption = SpokenCaption(**json.loads(line))
        yield PlacedCaption(
            caption.utterance_id,
            caption.image_id,
            caption.split,
            number,
            row,
            row_of_image[caption.image_id],
            int(lengths[row]),
            caption.speaker,
            caption.language,
            caption.text,
        )


def _read_dropped(lines: list[str]) -> list[Dropped]:
    return [Dropped(**json.loads(line)) for line in lines]


def _describe(
    record: dict[str, Any],
    features: dict[str, Any],
    captions: list[PlacedCaption],
    digests: list[str],
    dropped: list[Dropped],
) -> dict[str, Any]:
    frames = sum(caption.num_frames for caption in captions)
    # The digests are sorted: the identity does not depend on how captions were shared among shards.
    content = json.dumps([LAYOUT_VERSION, features, record["short_side"], sorted(digests)])
    return {
        "name": record["name"],
        "identity": hashlib.sha256(content.encode()).hexdigest()[:16],
        "held_out": record["held_out"],
        "short_side": record["short_side"],
        "features": features,
        "num_captions": _count(caption.split for caption in captions),
        "num_images": len({caption.image_id for caption in captions}),
        "num_frames": frames,
        "hours": frames * features["hop_length"] / features["sample_rate"] / 3600,
        "dropped": _count(entry.reason for entry in dropped),
    }


def _count(values: Any) -> dict[str, int]:
    counts: dict[str, int] = {}
    for value in values:
        counts[value] = counts.get(value, 0) + 1
    return counts
