"""What splits keep from training: images that are heard of in one split only.

For corpora that bring no validation split, or none at all, seeded images are held out of train, the same ones on every
machine.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import replace
from hashlib import sha256

from sia.data.manifest import SPLITS, Dropped, Reading, SpokenCaption

HELD_OUT_IMAGES = 1000
LARGEST_SHARE_HELD_OUT = 0.05
SHARE_OF_A_SPLIT = 0.2  # of the images of a corpus without splits, for validation and for test


def tested_on_val(captions: list[SpokenCaption], dropped: list[Dropped]) -> Reading:
    """The reading of a corpus whose val is the test split, and whose images of train validate in part."""
    captions, shared = without_shared_images(captions)
    captions, told = hold_out(captions)
    return Reading(captions, dropped + shared, notes=(f"val is the test split; {told}",))


def hold_out(captions: list[SpokenCaption]) -> tuple[list[SpokenCaption], str]:
    """Move all captions of some training images to validation; the captions, and a clause that tells how many images.

    About HELD_OUT_IMAGES images, at most about LARGEST_SHARE_HELD_OUT of them, are chosen by a hash of their ids: one
    at least where there are two, and never all.
    """
    held = held_images({caption.image_id for caption in captions if caption.split == "train"})
    if not held:
        return captions, "train has too few images to hold one out for validation"
    moves = {("train", image): "validation" for image in held}
    moved = [replace(one, split=moves.get((one.split, one.image_id), one.split)) for one in captions]
    told = "1 image held out of train is" if len(held) == 1 else f"{len(held):,} images held out of train are"
    return moved, f"{told} validation"


def held_images(images: set[str]) -> set[str]:
    """Which of the training images validate; what is drawn for one does not depend on the others."""
    share = min(LARGEST_SHARE_HELD_OUT, HELD_OUT_IMAGES / max(1, len(images)))
    ranked = sorted(images, key=draw)
    number = sum(draw(image) < share for image in ranked)
    return set(ranked[: min(max(1, number), len(ranked) - 1)]) if ranked else set()


def make_splits(captions: list[SpokenCaption]) -> tuple[list[SpokenCaption], str]:
    """Give each image a split, a fifth of them and at most HELD_OUT_IMAGES to validation, as many to test; and a clause
    that tells what was done.

    No speaker is heard in two splits, unless speakers are so few, or describe so many images together, that validation
    or test would have no half of this: then images alone keep the splits apart.
    """
    images = sorted({caption.image_id for caption in captions})
    wanted = min(HELD_OUT_IMAGES, max(round(SHARE_OF_A_SPLIT * len(images)), int(len(images) > 2)))
    split_of = _dealt(_groups(captions), wanted)
    counts = Counter(split_of.values())
    apart = 2 * min(counts["validation"], counts["test"]) >= wanted
    if not apart:
        split_of = _dealt(([image] for image in images), wanted)
        counts = Counter(split_of.values())
    told = f"no split column: {', '.join(f'{counts[split]:,} images to {split}' for split in SPLITS if counts[split])}"
    if any(caption.speaker for caption in captions):
        entangled = "; speakers are in several of them: they are too few, or describe the same images"
        told += ", no speaker to two" if apart else entangled
    return [replace(caption, split=split_of[caption.image_id]) for caption in captions], told


def _groups(captions: Iterable[SpokenCaption]) -> list[list[str]]:
    """The images, those together that have a speaker in common with one of their group."""
    leader: dict[tuple[str, str], tuple[str, str]] = {}

    def first(name: tuple[str, str]) -> tuple[str, str]:
        while (above := leader.setdefault(name, name)) != name:
            leader[name] = name = leader[above]
        return name

    for caption in captions:
        image = first(("image", caption.image_id))
        if caption.speaker:
            leader[image] = first(("speaker", caption.speaker))
    groups: dict[tuple[str, str], list[str]] = defaultdict(list)
    for image_id in sorted({caption.image_id for caption in captions}):
        groups[first(("image", image_id))].append(image_id)
    return list(groups.values())


def _dealt(groups: Iterable[list[str]], wanted: int) -> dict[str, str]:
    """Image -> split: groups, in the order of a hash, to test and validation while these have no more than `wanted`."""
    split_of: dict[str, str] = {}
    counts: Counter[str] = Counter()
    for group in sorted(groups, key=lambda group: draw(group[0])):
        held = (split for split in ("test", "validation") if counts[split] + len(group) <= wanted)
        split = next(held, "train")
        counts[split] += len(group)
        split_of.update(dict.fromkeys(group, split))
    return split_of


def draw(name: str) -> float:
    """A number in [0, 1) that depends on the name alone: not on the order of files, or on what else there is."""
    return int.from_bytes(sha256(name.encode()).digest()[:6], "big") / 2**48


def without_shared_images(captions: list[SpokenCaption]) -> tuple[list[SpokenCaption], list[Dropped]]:
    """Leave out each caption whose image is tested on too, or validated on where the caption is one of train."""
    strictest: dict[str, str] = {}
    for caption in captions:
        strictest[caption.image_id] = max(caption.split, strictest.get(caption.image_id, "train"), key=SPLITS.index)
    kept = [caption for caption in captions if caption.split == strictest[caption.image_id]]
    dropped = [
        Dropped(caption.utterance_id, "its image is in a held-out split too", f"{caption.image_id}: {other}")
        for caption in captions
        if (other := strictest[caption.image_id]) != caption.split
    ]
    return kept, dropped
