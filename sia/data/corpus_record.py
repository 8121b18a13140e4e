"""What corpus.json tells of a prepared corpus, and the identity of its content."""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from sia.data import repeated
from sia.data.caption_index import PlacedCaption
from sia.data.manifest import Dropped, HeldOut
from sia.data.shards import LAYOUT_VERSION
from sia.data.statistics import mean_and_deviation
from sia.errors import UserError


class Record(BaseModel):
    """What a record in JSON must hold to be read; it may hold more."""

    model_config = ConfigDict(extra="allow")

    @classmethod
    def check(cls, path: Path, found: Any) -> None:
        """Raises UserError that names the file, and what is missing or wrong in it."""
        try:
            cls.model_validate(found)
        except ValidationError as error:
            faults = [(".".join(map(str, fault["loc"])), fault) for fault in error.errors()]
            missing = [name for name, fault in faults if fault["type"] == "missing"]
            told = f"no {', '.join(missing)} in it" if missing else f"{faults[0][0] or 'it'}: {faults[0][1]['msg']}"
            raise UserError(f"{path}: {told}; run `python jobs/prepare.py` for it again") from None


class Features(Record):
    kind: str
    coefficients: int


class Checksums(Record):
    """Of the index of captions, and of each shard."""

    index: str
    shards: list[str]


class Description(Record):
    """corpus.json."""

    name: str
    identity: str
    held_out: HeldOut
    short_side: int | None
    features: Features
    num_shards: int
    num_captions: dict[str, int]
    num_images: int
    num_frames: int
    pixel_mean: list[float]
    pixel_std: list[float]
    frame_mean: list[float]
    frame_std: list[float]
    checksums: Checksums


class Plan(Record):
    """plan.json of a preparation."""

    name: str
    held_out: HeldOut
    num_shards: int
    images: str
    short_side: int
    features: Features | None
    content: str
    notes: list[str]


class Content(NamedTuple):
    """What the shards of a corpus hold together; sums are those of `Statistics`."""

    captions: list[PlacedCaption]
    digests: list[str]
    dropped: list[Dropped]
    features: dict[str, Any]
    pixel_sums: np.ndarray  # [3, 3]
    frame_sums: np.ndarray  # [3, F]
    repeated: dict[str, Any]
    shard_checksums: list[str]


def describe(plan: dict[str, Any], content: Content) -> dict[str, Any]:
    """corpus.json: from the plan what was asked for, from the content what came of it."""
    short_side = plan["short_side"] if plan["images"] == "resized" else None
    frames = sum(caption.num_frames for caption in content.captions)
    pixel_mean, pixel_std = mean_and_deviation(content.pixel_sums)
    frame_mean, frame_std = mean_and_deviation(content.frame_sums)
    return {
        "name": plan["name"],
        "identity": identity(content.features, short_side, content.digests),
        "held_out": plan["held_out"],
        "images": plan["images"],
        "short_side": short_side,
        "features": content.features,
        "notes": plan["notes"],
        "num_shards": plan["num_shards"],
        "num_captions": count(caption.split for caption in content.captions),
        "num_images": len({caption.image_id for caption in content.captions}),
        "num_frames": frames,
        "hours": hours(frames, content.features),
        "dropped": count(entry.reason for entry in content.dropped),
        "repeated": content.repeated,
        **{"pixel_mean": pixel_mean, "pixel_std": pixel_std, "frame_mean": frame_mean, "frame_std": frame_std},
    }


def identity(features: dict[str, Any], short_side: int | None, digests: Iterable[str]) -> str:
    """Sixteen hexadecimal digits of the content, of which the captions' digests may come in any order."""
    # Sorted: how captions were shared among shards does not matter.
    content = json.dumps([LAYOUT_VERSION, features, short_side, sorted(digests)])
    return hashlib.sha256(content.encode()).hexdigest()[:16]


def hours(num_frames: int, features: dict[str, Any]) -> float | None:
    """Hours of speech; None where it is not known how far apart the frames are."""
    if "hop_length" not in features or "sample_rate" not in features:
        return None
    return num_frames * features["hop_length"] / features["sample_rate"] / 3600


def count(values: Iterable[str]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for value in values:
        counts[value] = counts.get(value, 0) + 1
    return counts


def summary(description: dict[str, Any]) -> str:
    """What was prepared and what was dropped, in lines for a person."""
    counts, features = description["num_captions"], description["features"]
    splits = ", ".join(f"{number:,} {split}" for split, number in counts.items())
    spoken = "" if description["hours"] is None else f"{description['hours']:.2f} h of speech, "
    lines = [
        f"corpus {description['name']}, identity {description['identity']}: {splits} captions",
        f"  {sum(counts.values()):,} pairs, {description['num_images']:,} images ({description['images']}), {spoken}"
        f"{description['num_frames']:,} frames ({features['kind']}, {features['coefficients']} coefficients)",
        *(f"  {note}" for note in [*description["notes"], *repeated.told(description["repeated"])]),
    ]
    for reason, number in description["dropped"].items():
        lines.append(f"  dropped {number:,}: {reason} (each is listed in dropped.jsonl)")
    return "\n".join(lines)
