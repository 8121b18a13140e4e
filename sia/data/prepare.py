"""From a corpus as it lies on disk to a prepared one: plan, one task a shard, finish.

Each step may be killed and run again: what is whole is kept, what is not is not there.
"""

import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from sia.atomic import write_bytes, write_json_lines
from sia.data.corpora import CONFINED, read
from sia.data.corpus_record import DROPPED, Description, Plan, joined, sums_of, sums_of_counts
from sia.data.manifest import Dropped, Images, SpokenCaption, read_captions, record_of, write_captions
from sia.data.shards import ShardReader, ShardWriter, shard_path
from sia.errors import UserError
from sia.run.folder import RunFolder, runs_of, runs_root
from sia.run.records import TrainedOn

CAPTIONS_A_SHARD = 1000
CAPTIONS_A_PIECE = 100
RUNS_NAMED = 4


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
    found = reading.captions
    number = min(limit or len(found), len(found))
    num_shards = num_shards or max(1, round(number / CAPTIONS_A_SHARD))
    parts = _share_by_image([found[place * len(found) // number] for place in range(number)], num_shards)
    content = "".join(json.dumps([record_of(caption) for caption in part]) for part in parts)
    planned = Plan(
        # A table is anybody's corpus: its folder tells which.
        name=out.absolute().name if name in CONFINED else name,
        held_out=reading.held_out,
        num_shards=num_shards,
        images=images,
        short_side=short_side,
        features=reading.features,
        content=hashlib.sha256(content.encode()).hexdigest()[:16],
        notes=list(reading.notes),
    )
    _make_way(out, planned, replace)
    for number, part in enumerate(parts):
        write_captions(plan_path(out, number), part)
    write_json_lines(out / "plan" / DROPPED, [record_of(entry) for entry in reading.dropped])
    planned.write(out / "plan.json")
    return num_shards


def write_shard(out: Path, number: int) -> None:
    """The task of one shard: frames and images of its captions. A shard that is there already is kept."""
    if not is_written(out, number):
        write_pieces(out, number, [read_piece(read_plan(out), read_captions(plan_path(out, number)))])


class Piece(NamedTuple):
    """Captions of a shard as they are stored, and what its training captions add to the statistics."""

    stored: ShardWriter
    levels: np.ndarray  # [3, 256]: how many pixels have which value
    frame_sums: list[np.ndarray]  # of each caption


def pieces_of(out: Path, number: int) -> list[list[SpokenCaption]]:
    """A shard's captions in parts of some CAPTIONS_A_PIECE, one after the other; those of an image are in one part."""
    captions = read_captions(plan_path(out, number))
    return _share_by_image(captions, max(1, round(len(captions) / CAPTIONS_A_PIECE)))


def read_piece(planned: Plan, captions: Sequence[SpokenCaption]) -> Piece:
    """Frames and images of captions.

    A caption that cannot be read, or whose frames are too few or too many, is dropped with its reason.
    """
    # They load torch: not where a corpus is only planned.
    import torch

    from sia.data.caption_files import Unusable, caption_frames, stored_image
    from sia.data.mfcc import FEATURES

    # Clips are short: more threads only wait for each other, and the tasks share the machine already.
    torch.set_num_threads(1)
    stored = ShardWriter({"features": planned.features or FEATURES})
    levels = np.zeros((3, 256), np.int64)
    frame_sums: list[np.ndarray] = []
    trained = {caption.image_id for caption in captions if caption.split == "train"}
    for caption in captions:
        try:
            frames, image = caption_frames(caption, planned.features), stored.images.get(caption.image_id)
            if image is None:
                image, pixels = stored_image(caption, planned.images, planned.short_side)
                if caption.image_id in trained:
                    levels += np.reshape(pixels.histogram(), (3, 256))
        except Unusable as error:
            stored.dropped.append(Dropped(caption.utterance_id, error.reason, error.detail))
            continue
        stored.add(caption, frames, image)
        if caption.split == "train":
            frame_sums.append(sums_of(frames))
    return Piece(stored, levels, frame_sums)


def write_pieces(out: Path, number: int, pieces: Iterable[Piece]) -> None:
    """A shard of its parts, in their order; it has the same bytes however many they are."""
    writer, levels = ShardWriter({"plan": read_plan(out).of_shards}), np.zeros((3, 256), np.int64)
    sums_of_captions: list[np.ndarray] = []
    for piece in pieces:
        writer.extend(piece.stored)
        levels += piece.levels
        sums_of_captions += piece.frame_sums
    # One after the other: the last digits do not depend on the parts.
    frame_sums = sum(sums_of_captions, np.zeros((3, writer.attributes["features"]["coefficients"])))
    writer.attributes |= {"pixel_sums": sums_of_counts(levels).tolist(), "frame_sums": frame_sums.tolist()}
    writer.write(shard_path(out, number))


def finish(out: Path, replace: bool = False) -> Description:
    """Join the shards' records into captions.jsonl, dropped.jsonl and, last, corpus.json; its content is returned.

    Raises UserError where a shard is missing, no caption is left or, without `replace`, the content is another one
    than that of the corpus that was finished there before.
    """
    description, _, files = joined(out, read_plan(out))
    before = Description.read_sound(out / "corpus.json")
    if before is not None and before.identity != description.identity and not replace:
        raise UserError(_refusal(out, before.identity, "files that were read again have another content"))
    for name, content in files.items():
        write_bytes(out / name, content)
    description.write(out / "corpus.json")
    return description


def is_written(out: Path, number: int) -> bool:
    """Whether the shard is there, not cut short, and of the plan as it is now.

    Its frames and images are not read: `jobs/prepare.py --verify` does that.
    """
    planned = read_plan(out)
    try:
        with ShardReader(shard_path(out, number)) as shard:
            shard.check()
            return bool(shard.attribute("plan") == planned.of_shards)
    except UserError:
        return False


def read_plan(out: Path) -> Plan:
    planned = Plan.read(out / "plan.json")
    if planned is None:
        raise UserError(f"{out}: no plan.json; run `python jobs/prepare.py` from its start")
    return planned


def _make_way(out: Path, planned: Plan, replace: bool) -> None:
    """Take away the description of a finished corpus of another plan; a job that reads it notices.

    Raises UserError that names the runs that use it, unless it is to be replaced.
    """
    finished = Description.read_sound(out / "corpus.json")
    if finished is None:
        return
    before = _plan_before(out)
    wanted = planned.of_shards.items()
    different = [key if key != "content" else "captions" for key, value in wanted if before.get(key) != value]
    if different and not replace:
        raise UserError(_refusal(out, finished.identity, f"it was prepared otherwise ({', '.join(different)})"))
    if different:
        (out / "corpus.json").unlink()


def _plan_before(out: Path) -> dict[str, Any]:
    """The plan that was carried out, or that of the first shard where plan.json is gone; empty where neither is."""
    if (found := Plan.read(out / "plan.json")) is not None:
        return found.of_shards
    try:
        with ShardReader(shard_path(out, 0)) as shard:
            return dict(shard.attribute("plan") or {})
    except UserError:
        return {}


def _refusal(out: Path, identity: str, difference: str) -> str:
    using = [f"{run.study}/{run.name}" for run in runs_of() if _uses(run, out, identity)]
    named = ", ".join(using[:RUNS_NAMED]) + (", ..." if len(using) > RUNS_NAMED else "")
    told = f"{len(using)} {'run uses' if len(using) == 1 else 'runs use'} it ({named})"
    return (
        f"{out}: holds the finished corpus {identity}, and {difference}; "
        f"{told if using else f'no run under {runs_root()} uses it'}; "
        "give another --out, or --replace to change it under them"
    )


def _uses(run: RunFolder, folder: Path, identity: str) -> bool:
    """Whether a run was begun on this corpus or, where it has not begun, is to be; in doubt it does."""
    try:
        known = TrainedOn.read(run.corpus)
        if known is not None and (known.identity == identity or not known.folder):
            return True
        place = Path(known.folder) if known is not None else run.experiment().data.path
        return place.resolve() == folder.resolve()
    except UserError:
        return True


def _share_by_image(captions: list[SpokenCaption], num_shards: int) -> list[list[SpokenCaption]]:
    by_image: dict[str, list[SpokenCaption]] = {}
    for caption in captions:
        by_image.setdefault(caption.image_id, []).append(caption)
    parts: list[list[SpokenCaption]] = [[] for _ in range(num_shards)]
    for position, group in enumerate(by_image.values()):
        parts[position * num_shards // len(by_image)] += group
    return parts


def plan_path(out: Path, number: int) -> Path:
    return out / "plan" / f"{number:05d}.jsonl"
