"""SpokenCaption, the record that every corpus is read into, and the files that hold such records.

This module loads no torch.
"""

import json
import os
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

from sia.atomic import write_json_lines
from sia.errors import UserError

Split = Literal["train", "validation", "test"]
SPLITS: tuple[str, ...] = get_args(Split)
HeldOut = Literal["images", "captions"]
Images = Literal["resized", "original"]


@dataclass(frozen=True, slots=True)
class SpokenCaption:
    """One utterance that describes one image. Captions of the same image share its `image_id`."""

    utterance_id: str
    image_id: str
    speech_path: str
    image_path: str
    split: str
    speaker: str = ""
    language: str = ""
    text: str = ""


@dataclass(frozen=True, slots=True)
class Dropped:
    """An utterance that was left out: a reason that can be counted, and the detail of this one."""

    utterance_id: str
    reason: str
    detail: str = ""


class Reading(NamedTuple):
    """What a corpus reader found: the captions, what it left out, and what its splits keep from training.

    Where "images" are held out, an image lies in one split. Where "captions" are, the captions of an image that is
    trained on lie in several.
    notes: sentences that the summary tells, such as which split stands in for a missing one.
    features: what the frames are where somebody else computed them (its keys are those of sia.data.mfcc.FEATURES that
    apply, `kind` and `coefficients` at least); None where speech_path is a recording, to be turned into MFCC frames.
    """

    captions: list[SpokenCaption]
    dropped: list[Dropped]
    held_out: HeldOut = "images"
    notes: tuple[str, ...] = ()
    features: dict[str, Any] | None = None


def validate_captions(captions: Iterable[SpokenCaption], source: str, held_out: HeldOut = "images") -> None:
    """Raises UserError for an utterance given twice, an unknown split, an image with two paths, an image file with two
    ids, or a recording in two splits.

    An image in two splits is an error too, unless captions are what is held out.
    """
    seen: set[str] = set()
    image_of: dict[str, tuple[str, str]] = {}
    ids_of: dict[str, set[str]] = defaultdict(set)
    splits_of: dict[str, set[str]] = defaultdict(set)
    for caption in captions:
        name = caption.utterance_id
        if name in seen:
            raise UserError(f"{source}: utterance {name!r} is there twice; utterance ids are unique")
        seen.add(name)
        if caption.split not in SPLITS:
            raise UserError(f"{source}: utterance {name!r} has split {caption.split!r}; use one of {', '.join(SPLITS)}")
        place = (caption.image_path, caption.split if held_out == "images" else "any")
        if image_of.setdefault(caption.image_id, place) != place:
            raise UserError(
                f"{source}: image {caption.image_id!r} has two paths or lies in two splits (utterance {name!r}); "
                "give each image one path and one split"
            )
        ids_of[os.path.normpath(caption.image_path)].add(caption.image_id)
        splits_of[os.path.normpath(caption.speech_path)].add(caption.split)
    _refuse_several(source, "image file", "ids", ids_of)
    _refuse_several(source, "recording", "splits", splits_of)


def _refuse_several(source: str, what: str, values: str, values_of: dict[str, set[str]]) -> None:
    """Raises UserError that counts the paths with more than one value."""
    several = [path for path, found in values_of.items() if len(found) > 1]
    if several:
        first = f"{several[0]} has {' and '.join(sorted(values_of[several[0]])[:2])}"
        counted = f"1 {what} has" if len(several) == 1 else f"{len(several)} {what}s have"
        raise UserError(f"{source}: {counted} several {values} ({first}); give each {what} one of its {values}")


def record_of(entry: Any) -> dict[str, Any]:
    """The values of a flat dataclass with slots: `asdict`, which takes ten times as long, looks for others in them."""
    return {name: getattr(entry, name) for name in entry.__slots__}


def write_captions(path: Path, captions: Iterable[SpokenCaption]) -> None:
    write_json_lines(path, [record_of(caption) for caption in captions])


def read_captions(path: Path) -> list[SpokenCaption]:
    """Raises UserError that names the file and line of a record that is no caption."""
    captions = []
    for number, line in enumerate(path.read_text(encoding="utf-8").split("\n")[:-1], start=1):
        try:
            captions.append(SpokenCaption(**json.loads(line)))
        except (ValueError, TypeError) as error:
            raise UserError(f"{path}, line {number}: not a caption ({error}); prepare the corpus again") from None
    return captions
