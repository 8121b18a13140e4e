"""From a corpus as it lies on disk to a prepared one: plan, one task a shard, finish.

Each step may be killed and run again: what is whole is kept, what is not is not there.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from sia.atomic import read_json, write_json
from sia.data.caption_files import Images, Unusable, caption_frames, stored_image
from sia.data.caption_index import PlacedCaption, write_placed
from sia.data.corpora import read
from sia.data.corpus_record import Content, Plan, describe, summary
from sia.data.manifest import Dropped, SpokenCaption, read_captions, write_captions, write_dropped
from sia.data.prepared_corpus import shard_path
from sia.data.repeated import Repeated, contents
from sia.data.runs_of_corpus import told_runs
from sia.data.shards import ShardReader, ShardWriter
from sia.data.statistics import Statistics
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
    allowed: Sequence[Path] = (),
    replace: bool = False,
) -> int:
    """Read the corpus and write down which captions go to which shard; the number of shards.

    limit: take so many captions, spread over the corpus, for a first try.
    images: store them resized to `short_side` pixels, or the original files.
    allowed: folders beside the root that a table may name files of.
    replace: take a finished corpus of another plan away; without it, one is left as it is, and UserError raised.

    All captions of an image go to the same shard, so that the image is stored once.
    """
    reading = read(name, root, allowed)
    captions = _spread(reading.captions, limit or len(reading.captions))
    num_shards = num_shards or max(1, round(len(captions) / CAPTIONS_A_SHARD))
    parts = _share_by_image(captions, num_shards)
    record = {
        "name": name,
        "held_out": reading.held_out,
        "num_shards": num_shards,
        "images": images,
        "short_side": short_side,
        "features": reading.features,
        "content": _hash_of(parts),
        "notes": list(reading.notes),
    }
    _make_way(out, record, replace)
    for number, part in enumerate(parts):
        write_captions(_plan_path(out, number), part)
    write_dropped(out / "plan" / "dropped.jsonl", reading.dropped)
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


def finish(out: Path, replace: bool = False) -> dict[str, Any]:
    """Join the shards' records into captions.jsonl, dropped.jsonl and, last, corpus.json; its content is returned.

    Raises UserError where a shard is missing, no caption is left or, without `replace`, the content is another one
    than that of the corpus that was finished there before.
    """
    record = read_plan(out)
    content = joined(out, record["num_shards"])
    if not content.captions:
        first = next((f"; the first: {entry.reason}, {entry.detail}" for entry in content.dropped), "")
        raise UserError(f"{out}: every caption of corpus {record['name']!r} was dropped{first}")
    description = describe(record, content)
    before = _finished(out)
    if before is not None and before["identity"] != description["identity"] and not replace:
        raise UserError(_refusal(out, before["identity"], "files that were read again have another content"))
    index_checksum = write_placed(out, content.captions)
    write_dropped(out / "dropped.jsonl", content.dropped)
    description["checksums"] = {"index": index_checksum, "shards": content.shard_checksums}
    write_json(out / "corpus.json", description)
    return description


def is_written(out: Path, number: int) -> bool:
    """Whether the shard is there, not cut short, and of the plan as it is now.

    Its frames and images are not read: `jobs/prepare.py --verify` does that.
    """
    content = _content_of(read_plan(out))
    try:
        with closing(ShardReader(shard_path(out, number))) as shard:
            shard.check()
            return bool(shard.attribute("plan") == content)
    except UserError:
        return False


def read_plan(out: Path) -> dict[str, Any]:
    record = read_json(out / "plan.json")
    if record is None:
        raise UserError(f"{out}: no plan.json; run `python jobs/prepare.py` from its start")
    Plan.check(out / "plan.json", record)
    return dict(record)


def _make_way(out: Path, record: dict[str, Any], replace: bool) -> None:
    """Take away the description of a finished corpus of another plan; a job that reads it notices.

    Raises UserError that names the runs that use it, unless it is to be replaced.
    """
    finished = _finished(out)
    if finished is None:
        return
    wanted, before = _content_of(record), _planned(out)
    different = [key if key != "content" else "captions" for key in wanted if before.get(key) != wanted[key]]
    if different and not replace:
        raise UserError(_refusal(out, finished["identity"], f"it was prepared otherwise ({', '.join(different)})"))
    if different:
        (out / "corpus.json").unlink()


def _finished(out: Path) -> dict[str, Any] | None:
    """corpus.json; None where there is none, or it is damaged and to be written again."""
    try:
        found = read_json(out / "corpus.json")
    except UserError:
        return None
    return found if isinstance(found, dict) and "identity" in found else None


def _planned(out: Path) -> dict[str, Any]:
    """The plan that was carried out, or that of the first shard where plan.json is gone; empty where neither is."""
    if (found := read_json(out / "plan.json")) is not None:
        return dict(found) if isinstance(found, dict) else {}
    try:
        with closing(ShardReader(shard_path(out, 0))) as shard:
            return dict(shard.attribute("plan") or {})
    except UserError:
        return {}


def _refusal(out: Path, identity: str, difference: str) -> str:
    return (
        f"{out}: holds the finished corpus {identity}, and {difference}; {told_runs(out, identity)}; "
        "give another --out, or --replace to change it under them"
    )


def _spread(captions: list[SpokenCaption], number: int) -> list[SpokenCaption]:
    """So many of the captions, at equal distances; all where there are no more."""
    number = min(number, len(captions))
    return [captions[place * len(captions) // number] for place in range(number)]


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


def _hash_of(parts: list[list[SpokenCaption]]) -> str:
    """The hash of the captions of each shard."""
    content = hashlib.sha256()
    for part in parts:
        content.update(json.dumps([asdict(caption) for caption in part]).encode())
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
    checksums: list[str] = []
    repeated = Repeated()
    pixel_sums, frame_sums = np.zeros(()), np.zeros(())
    for number in range(num_shards):
        shard = ShardReader(shard_path(out, number))
        shard.check()
        checksums.append(shard.checksum)
        spoken = [SpokenCaption(**json.loads(line)) for line in shard.strings("captions")]
        image_ids = shard.strings("image_ids")
        captions += _placed(shard, number, spoken, image_ids)
        images = dict(zip(image_ids, contents(shard.image_crcs, shard.image_offsets), strict=True))
        repeated.add(spoken, contents(shard.frame_crcs, shard.frame_offsets), images)
        digests += shard.strings("digests")
        lines += shard.strings("dropped")
        pixel_sums = pixel_sums + shard.attribute("pixel_sums")
        frame_sums = frame_sums + shard.attribute("frame_sums")
        features = shard.attribute("features")
        shard.close()
    dropped = [Dropped(**json.loads(line)) for line in lines]
    return Content(captions, digests, dropped, features, pixel_sums, frame_sums, repeated.counts(), checksums)


def _placed(
    shard: ShardReader, number: int, captions: list[SpokenCaption], image_ids: list[str]
) -> Iterator[PlacedCaption]:
    row_of_image = {image_id: row for row, image_id in enumerate(image_ids)}
    lengths = np.diff(shard.frame_offsets)
    for row, caption in enumerate(captions):
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
