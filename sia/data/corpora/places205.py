"""Places audio captions, the paper's corpus (section 3): JSON metadata beside recordings and Places 205's images.

The first release has metadata/train.json and val.json: val is the test split, and seeded images are held out of train
for validation. That of 2020 has dev_* for validation and test_* for testing.
"""

import json
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

from sia.data.manifest import Reading, SpokenCaption
from sia.errors import UserError

CURE = "give the folder that holds metadata/train.json and val.json, or the *_2020.json files, with --root"
SPLIT_OF_2020 = {
    "train_2020": "train",
    **{"dev_seen_2020": "validation", "dev_unseen_2020": "validation"},
    **{"test_seen_2020": "test", "test_unseen_2020": "test"},
}
SPLIT_OF_FIRST = {"train": "train", "val": "test"}
HELD_OUT_IMAGES = 1000
LARGEST_SHARE_HELD_OUT = 0.05


def read(root: Path) -> Reading:
    """The captions of either release under `root`. Raises UserError that names the file, and the record, at fault."""
    folder = root / "metadata" if (root / "metadata").is_dir() else root
    splits = SPLIT_OF_2020 if (folder / "train_2020.json").is_file() else SPLIT_OF_FIRST
    missing = [f"{name}.json" for name in splits if not (folder / f"{name}.json").is_file()]
    if missing:
        raise UserError(f"{folder}: no {', '.join(missing)}; {CURE}")
    captions = [
        caption for name, split in splits.items() for caption in _read_file(root, folder / f"{name}.json", split)
    ]
    return Reading(captions if splits is SPLIT_OF_2020 else _hold_out(captions), [])


def _read_file(root: Path, path: Path, split: str) -> list[SpokenCaption]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        records = content["data"]
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: not Places' metadata ({error!r}); fetch the file again") from None
    speech = _base(content, "audio_base_path", root)
    images = _base(content, "image_base_path", root)
    return [_caption(path, number, record, speech, images, split) for number, record in enumerate(records)]


def _base(content: dict[str, Any], key: str, root: Path) -> Path:
    """The folder that the file names, where it is there; it often is that of another machine."""
    named = Path(content.get(key) or root)
    return named if named.is_dir() else root


def _caption(path: Path, number: int, record: dict[str, Any], speech: Path, images: Path, split: str) -> SpokenCaption:
    try:
        return SpokenCaption(
            utterance_id=record["uttid"],
            image_id=record["image"],
            speech_path=str(speech / record["wav"]),
            image_path=str(images / record["image"]),
            split=split,
            speaker=record.get("speaker", ""),
            language="en",
            text=record.get("asr_text", ""),
        )
    except (KeyError, TypeError) as error:
        raise UserError(f"{path}: record {number} of `data` is no caption (missing {error}); mend or drop it") from None


def _hold_out(captions: list[SpokenCaption]) -> list[SpokenCaption]:
    """Move the captions of about HELD_OUT_IMAGES training images to validation, the same ones on every machine."""
    images = {caption.image_id for caption in captions if caption.split == "train"}
    share = min(LARGEST_SHARE_HELD_OUT, HELD_OUT_IMAGES / max(1, len(images)))
    held = {image for image in images if _draw(image) < share}
    return [_validating(caption) if caption.image_id in held else caption for caption in captions]


def _validating(caption: SpokenCaption) -> SpokenCaption:
    return replace(caption, split="validation") if caption.split == "train" else caption


def _draw(image_id: str) -> float:
    """A number in [0, 1) that depends on the image alone."""
    return int.from_bytes(sha256(image_id.encode()).digest()[:6], "big") / 2**48
