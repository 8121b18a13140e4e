"""What corpus.json tells of a prepared corpus, and how it and the files beside it are joined from the shards."""

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from sia.data.caption_index import LINES, NUMBERS, PlacedCaption, index_checksum, index_of, lines_of
from sia.data.manifest import HeldOut, Images, SpokenCaption
from sia.data.shards import LAYOUT_VERSION, ShardReader, shard_path
from sia.errors import UserError
from sia.run.records import Record

DROPPED = "dropped.jsonl"
Content = tuple[int, int]  # CRC-32 and length: of 400,000 contents, less than one in a hundred corpora confuses two


class Plan(Record):
    """plan.json of a preparation: what was asked for."""

    name: str
    held_out: HeldOut
    num_shards: int
    images: Images
    short_side: int
    features: dict[str, Any] | None  # of frames that somebody else computed
    content: str
    notes: list[str]

    @property
    def of_shards(self) -> dict[str, Any]:
        """What decides a shard's content; another wording of a note leaves the shards as they are."""
        return self.model_dump(exclude={"notes"})


class Checksums(Record):
    """Of the index of captions, and of each shard."""

    index: str
    shards: list[str]


class Description(Record):
    """corpus.json: what was asked for, and what came of it."""

    name: str
    identity: str
    held_out: HeldOut
    images: Images
    short_side: int | None  # None where the images are the original files
    features: dict[str, Any]
    notes: list[str]
    num_shards: int
    num_captions: dict[str, int]  # of each split
    num_images: int
    num_frames: int
    hours: float | None  # None where it is not known how far apart the frames are
    dropped: dict[str, int]  # of each reason
    repeated: dict[str, Any]
    pixel_mean: list[float]
    pixel_std: list[float]
    frame_mean: list[float]
    frame_std: list[float]
    checksums: Checksums

    def summary(self) -> str:
        """What was prepared and what was dropped, in lines for a person."""
        splits = ", ".join(f"{number:,} {split}" for split, number in self.num_captions.items())
        spoken = "" if self.hours is None else f"{self.hours:.2f} h of speech, "
        kind, width = self.features["kind"], self.features["coefficients"]
        lines = [
            f"corpus {self.name}, identity {self.identity}: {splits} captions",
            f"  {sum(self.num_captions.values()):,} pairs, {self.num_images:,} images ({self.images}), {spoken}"
            f"{self.num_frames:,} frames ({kind}, {width} coefficients)",
            *(f"  {note}" for note in [*self.notes, *told_repeated(self.repeated)]),
            *(
                f"  dropped {number:,}: {reason} (each is listed in {DROPPED})"
                for reason, number in self.dropped.items()
            ),
        ]
        return "\n".join(lines)


class Joined(NamedTuple):
    """What the shards of a corpus hold together: its description, its captions, and the files beside corpus.json."""

    description: Description
    captions: list[PlacedCaption]
    files: dict[str, bytes]


def joined(folder: Path, plan: Plan | Description) -> Joined:
    """plan: what was asked for. Raises UserError for a shard that cannot be read, and where no caption is left."""
    by_reader = folder / "plan" / DROPPED
    dropped = by_reader.read_text(encoding="utf-8").split("\n")[:-1] if by_reader.exists() else []
    captions: list[PlacedCaption] = []
    digests: list[str] = []
    checksums: list[str] = []
    repeated = Repeated()
    pixel_sums, frame_sums = np.zeros(()), np.zeros(())
    for number in range(plan.num_shards):
        with ShardReader(shard_path(folder, number)) as shard:
            shard.check()
            checksums.append(shard.checksum)
            spoken, image_ids = shard.captions(), shard.strings("image_ids")
            captions += _placed(number, spoken, image_ids, np.diff(shard.frames.offsets))
            images = dict(zip(image_ids, contents(shard.images.crcs, shard.images.offsets), strict=True))
            repeated.add(spoken, contents(shard.frames.crcs, shard.frames.offsets), images)
            digests += shard.strings("digests")
            dropped += shard.strings("dropped")
            pixel_sums = pixel_sums + shard.attribute("pixel_sums")
            frame_sums = frame_sums + shard.attribute("frame_sums")
            features = shard.attribute("features")
    left_out = [json.loads(line) for line in dropped]
    if not captions:
        first = f"; the first: {left_out[0]['reason']}, {left_out[0]['detail']}" if left_out else ""
        raise UserError(f"{folder}: every caption of corpus {plan.name!r} was dropped{first}")
    lines = lines_of(captions)
    index = index_of(captions, lines)
    short_side = plan.short_side if plan.images == "resized" else None
    num_frames = sum(caption.num_frames for caption in captions)
    description = Description(
        **plan.model_dump(include={"name", "held_out", "images", "notes", "num_shards"}),
        **_statistics("pixel", pixel_sums),
        **_statistics("frame", frame_sums),
        identity=identity(features, short_side, digests),
        short_side=short_side,
        features=features,
        num_captions=Counter(caption.split for caption in captions),
        num_images=len({caption.image_id for caption in captions}),
        num_frames=num_frames,
        hours=_hours(num_frames, **features),
        dropped=Counter(entry["reason"] for entry in left_out),
        repeated=repeated.counts(),
        checksums=Checksums(index=index_checksum(index), shards=checksums),
    )
    listed = "".join(json.dumps(entry, ensure_ascii=False) + "\n" for entry in left_out)
    return Joined(description, captions, {LINES: b"".join(lines), NUMBERS: index, DROPPED: listed.encode()})


def identity(features: dict[str, Any], short_side: int | None, digests: Iterable[str]) -> str:
    """Sixteen hexadecimal digits of the content, of which the captions' digests may come in any order."""
    # Sorted: how captions were shared among shards does not matter.
    content = json.dumps([LAYOUT_VERSION, features, short_side, sorted(digests)])
    return hashlib.sha256(content.encode()).hexdigest()[:16]


def sums_of(rows: np.ndarray) -> np.ndarray:
    """Rows [N, width] -> the sums [3, width] of ones, values and squares; those of shards add up to the corpus's."""
    rows = rows.astype(np.float64)
    sums = rows.sum(axis=0)
    return np.stack([np.full(rows.shape[1], len(rows)), sums, np.square(rows, out=rows).sum(axis=0)])


def sums_of_counts(counts: np.ndarray) -> np.ndarray:
    """As sums_of, of pixels in shares of full intensity: counts [3, 256] of how many have which value."""
    shares = np.arange(256) / 255
    return np.stack([counts.sum(axis=1), counts @ shares, counts @ shares**2])


def _placed(
    shard: int, captions: list[SpokenCaption], image_ids: list[str], num_frames: np.ndarray
) -> Iterator[PlacedCaption]:
    row_of_image = {image_id: row for row, image_id in enumerate(image_ids)}
    for row, (caption, frames) in enumerate(zip(captions, num_frames.tolist(), strict=True)):
        names = caption.utterance_id, caption.image_id, caption.split
        place = shard, row, row_of_image[caption.image_id], frames
        yield PlacedCaption(*names, *place, caption.speaker, caption.language, caption.text)


def _hours(num_frames: int, hop_length: int | None = None, sample_rate: int | None = None, **_: Any) -> float | None:
    return None if hop_length is None or sample_rate is None else num_frames * hop_length / sample_rate / 3600


def _statistics(name: str, sums: np.ndarray) -> dict[str, Any]:
    """The mean and the deviation [width] of sums [3, width]."""
    count = np.maximum(sums[0], 1)
    mean = sums[1] / count
    deviation = np.sqrt(np.maximum(sums[2] / count - mean**2, 1e-12))
    return {f"{name}_mean": mean.tolist(), f"{name}_std": deviation.tolist()}


class Repeated:
    """Finds equal contents among the rows of all shards; copies of a file differ in their paths, not in these."""

    def __init__(self) -> None:
        self.ids: dict[Content, set[str]] = defaultdict(set)
        self.spoken_in: dict[Content, set[str]] = defaultdict(set)
        self.shown_in: dict[str, set[str]] = defaultdict(set)

    def add(self, captions: Iterable[SpokenCaption], frames: Iterable[Content], images: dict[str, Content]) -> None:
        """The captions of a shard, the contents of their frames, and of each image by its id."""
        for caption, content in zip(captions, frames, strict=True):
            self.ids[images[caption.image_id]].add(caption.image_id)
            self.spoken_in[content].add(caption.split)
            self.shown_in[caption.image_id].add(caption.split)

    def counts(self) -> dict[str, Any]:
        """How many images have several ids, how many of these lie in several splits, and how many recordings do."""
        several = [sorted(ids) for ids in self.ids.values() if len(ids) > 1]
        shared = [ids for ids in several if len(set().union(*(self.shown_in[one] for one in ids))) > 1]
        return {
            "images": len(several),
            "images_in_several_splits": len(shared),
            "first_images": min(shared or several, default=[]),
            "recordings_in_several_splits": sum(len(splits) > 1 for splits in self.spoken_in.values()),
        }


def contents(crcs: np.ndarray, offsets: np.ndarray) -> Iterator[Content]:
    """The contents of a shard's rows."""
    return zip(crcs.tolist(), np.diff(offsets).tolist(), strict=True)


def told_repeated(counts: dict[str, Any]) -> list[str]:
    """Lines for a person; none where nothing is repeated."""
    lines = []
    if counts["images"]:
        named = " and ".join(repr(name) for name in counts["first_images"][:2])
        lines.append(
            f"warning: {counts['images']:,} images lie under several ids ({named}), and count as each other's "
            f"negatives; {counts['images_in_several_splits']:,} of them in several splits"
        )
    if counts["recordings_in_several_splits"]:
        lines.append(f"warning: {counts['recordings_in_several_splits']:,} recordings lie in several splits")
    return lines
