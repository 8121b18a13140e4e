"""From a corpus as it lies on disk to a prepared one: plan, one task a shard, finish.

Each step may be killed and run again: what is whole is kept, what is not is not there.
"""

import hashlib
import json
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from sia.atomic import read_json, write_json
from sia.data.corpora import read
from sia.data.description import Content, describe, summary
from sia.data.manifest import Dropped, SpokenCaption, read_captions, write_captions, write_dropped
from sia.data.placed import PlacedCaption, write_placed
from sia.data.prepared import shard_path
from sia.data.shards import ShardReader, ShardWriter
from sia.data.statistics import Statistics
from sia.data.usable import Images, Unusable, caption_frames, stored_image
from sia.errors import UserError

CAPTIONS_A_SHARD = 1000

__all__ = ["finish", "is_written", "plan", "read_plan", "summary", "write_shard"]


def plan(
    name: str,
    root: Path,
    out: Path,
    num_shards: int | None,
    short_side: int,
    limit: int | None = None,
    images: Images = "resized",
) -> int:
    """Read the corpus and write down which captions go to which shard; the number of shards.

    limit: take about so many captions, spread over the corpus, for a first try.
    images: store them resized to `short_side` pixels, or the original files.

    All captions of an image go to the same shard, so that the image is stored once.
    """
    reading = read(name, root)
    captions = reading.captions[:: max(1, len(reading.captions) // limit)] if limit else reading.captions
    num_shards = num_shards or max(1, round(len(captions) / CAPTIONS_A_SHARD))
    content = _write_plans(out, _share_by_image(captions, num_shards))
    write_dropped(out / "plan" / "dropped.jsonl", reading.dropped)
    record = {
        "name": name,
        "held_out": reading.held_out,
        "num_shards": num_shards,
        "images": images,
        "short_side": short_side,
        "features": reading.features,
        "content": content,
        "notes": list(reading.notes),
    }
    if read_json(out / "plan.json") != record:
        (out / "corpus.json").unlink(missing_ok=True)
    write_json(out / "plan.json", record)
    return num_shards


def write_shard(out: Path, number: int) -> None:
    """The task of one shard: frames and images of its captions. A shard that is there already is kept.

    A caption that cannot be read, or whose frames are too few or too many, is dropped with its reason.
    """
    record = read_plan(out)
    if is_written(out, number):
        return
    import torch

    from sia.data.mfcc import FEATURES

    # Clips are short: more threads only wait for each other, and the tasks share the machine already.
    torch.set_num_threads(1)
    features = record["features"] or FEATURES
    writer = ShardWriter({"plan": _content_of(record), "features": features})
    pixels, frames = Statistics(3), Statistics(features["coefficients"])
    _fill(writer, record, read_captions(_plan_path(out, number)), pixels, frames)
    writer.attributes |= {"pixel_sums": pixels.sums.tolist(), "frame_sums": frames.sums.tolist()}
    writer.write(shard_path(out, number))


def finish(out: Path) -> dict[str, Any]:
    """Join the shards' records into captions.jsonl, dropped.jsonl and, last, corpus.json; its content is returned.

    Raises UserError where a shard is missing or no caption is left.
    """
    record = read_plan(out)
    content = joined(out, record["num_shards"])
    if not content.captions:
        first = next((f"; the first: {entry.reason}, {entry.detail}" for entry in content.dropped), "")
        raise UserError(f"{out}: every caption of corpus {record['name']!r} was dropped{first}")
    write_placed(out, content.captions)
    write_dropped(out / "dropped.jsonl", content.dropped)
    description = describe(record, content)
    write_json(out / "corpus.json", description)
    return description


def is_written(out: Path, number: int) -> bool:
    """Whether the shard is there, not cut short, and of the plan as it is now.

    What lies inside a file of the right length is not read: `jobs/prepare.py --verify` does that.
    """
    content = _content_of(read_plan(out))
    try:
        with closing(ShardReader(shard_path(out, number))) as shard:
            return bool(shard.attribute("plan") == content)
    except UserError:
        return False


def read_plan(out: Path) -> dict[str, Any]:
    record = read_json(out / "plan.json")
    if record is None:
        raise UserError(f"{out}: no plan.json; run `python jobs/prepare.py` from its start")
    return record


def _fill(
    writer: ShardWriter, record: dict[str, Any], captions: list[SpokenCaption], pixels: Statistics, frames: Statistics
) -> None:
    """Add each caption to the writer, and those of training to the statistics."""
    trained = {caption.image_id for caption in captions if caption.split == "train"}
    for caption in captions:
        try:
            speech = caption_frames(caption, record["features"])
            counted = pixels if caption.image_id in trained else None
            image = writer.images.get(caption.image_id) or stored_image(
                caption, record["images"], record["short_side"], counted
            )
        except Unusable as error:
            writer.drop(caption.utterance_id, error.reason, error.detail)
        else:
            writer.add(caption, speech, image)
            if caption.split == "train":
                frames.add(speech)


def _content_of(record: dict[str, Any]) -> dict[str, Any]:
    """What of the plan decides a shard's content; another wording of a note leaves the shards as they are."""
    return {key: value for key, value in record.items() if key != "notes"}


def _write_plans(out: Path, parts: list[list[SpokenCaption]]) -> str:
    """Write the captions of each shard; the hash of all of them."""
    content = hashlib.sha256()
    for number, part in enumerate(parts):
        content.update(json.dumps([asdict(caption) for caption in part]).encode())
        write_captions(_plan_path(out, number), part)
    return content.hexdigest()[:16]


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


def joined(out: Path, num_shards: int) -> Content:
    """What the shards hold together, after what the reader dropped. Raises UserError for one that cannot be read."""
    lines = (out / "plan" / "dropped.jsonl").read_text(encoding="utf-8").split("\n")[:-1]
    captions: list[PlacedCaption] = []
    digests: list[str] = []
    pixel_sums, frame_sums = np.zeros(()), np.zeros(())
    for number in range(num_shards):
        shard = ShardReader(shard_path(out, number))
        captions += _placed(shard, number)
        digests += shard.strings("digests")
        lines += shard.strings("dropped")
        pixel_sums = pixel_sums + shard.attribute("pixel_sums")
        frame_sums = frame_sums + shard.attribute("frame_sums")
        features = shard.attribute("features")
        shard.close()
    dropped = [Dropped(**json.loads(line)) for line in lines]
    return Content(captions, digests, dropped, features, pixel_sums, frame_sums)


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
