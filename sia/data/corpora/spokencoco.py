"""SpokenCOCO: MS COCO's captions, read aloud; SpokenCOCO_train.json and SpokenCOCO_val.json.

val is the test split, and seeded images are held out of train for validation.
"""

from collections.abc import Iterator
from pathlib import Path

from sia.data.corpora.held_out import hold_out, without_shared_images
from sia.data.corpora.records import (
    Record,
    collect,
    first_file,
    folder_holding,
    located,
    named_folder,
    read_json_records,
)
from sia.data.manifest import Reading, SpokenCaption
from sia.errors import UserError

CURE = "give the folder that holds SpokenCOCO_train.json and SpokenCOCO_val.json with --root"
SPLIT_OF = {"SpokenCOCO_train.json": "train", "SpokenCOCO_val.json": "test"}
IMAGE_FOLDERS = ("", "images", "coco", "mscoco", "MSCOCO", "COCO")


def read(root: Path) -> Reading:
    """The captions under `root`. Raises UserError that names the file, and the record, at fault."""
    found = first_file(SPLIT_OF, [root, root / "SpokenCOCO", root / "metadata"])
    folder = found.parent if found else root
    missing = [name for name in SPLIT_OF if not (folder / name).is_file()]
    if missing:
        raise UserError(f"{folder}: no {', '.join(missing)}; {CURE}")
    captions, dropped = without_shared_images(
        collect(placed for name, split in SPLIT_OF.items() for placed in _read_file(root, folder / name, split))
    )
    captions, told = hold_out(captions)
    return Reading(captions, dropped, notes=(f"val is the test split; {told}",))


def _read_file(root: Path, path: Path, split: str) -> Iterator[tuple[str, SpokenCaption]]:
    content, records = read_json_records(path, "data", "SpokenCOCO's")
    spoken = [(record, caption) for record in records for caption in record.records("captions")]
    wavs, shown = [caption.text("wav") for _, caption in spoken], [record.text("image") for record in records]
    speech = folder_holding(wavs, [*named_folder(content, "audio_base_path", root), path.parent, root])
    images = folder_holding(
        shown, [*named_folder(content, "image_base_path", root), *_image_folders(root, path.parent)]
    )
    for record, caption in spoken:
        yield caption.place, _caption(record, caption, speech, images, split)


def _image_folders(root: Path, folder: Path) -> list[Path]:
    """Where train2014/ and val2014/ may lie; COCO often is unpacked beside SpokenCOCO."""
    return [place / name for place in (root, folder, folder.parent) for name in IMAGE_FOLDERS]


def _caption(record: Record, caption: Record, speech: Path, images: Path, split: str) -> SpokenCaption:
    image = record.text("image")
    return SpokenCaption(
        utterance_id=caption.text("uttid"),
        image_id=image,
        speech_path=located(speech, caption.text("wav")),
        image_path=located(images, image),
        split=split,
        speaker=caption.optional("speaker"),
        language="en",
        text=caption.optional("text"),
    )
