"""SpokenCOCO: MS COCO's captions, read aloud; SpokenCOCO_train.json and SpokenCOCO_val.json.

val is the test split, and seeded images are held out of train for validation.
"""

from collections.abc import Iterator
from pathlib import Path

from sia.data.corpora.held_out import tested_on_val
from sia.data.corpora.metadata import Record, collect, first_file, read_json_records, spoken_captions
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
    placed = (caption for name in SPLIT_OF for caption in _read_file(root, folder / name))
    return tested_on_val(collect(placed), [])


def _read_file(root: Path, path: Path) -> Iterator[tuple[str, SpokenCaption]]:
    content, images = read_json_records(path, "data", "SpokenCOCO's")
    records = [caption for image in images for caption in _captions(image, SPLIT_OF[path.name])]
    # train2014/ and val2014/; COCO often is unpacked beside SpokenCOCO.
    image_folders = [place / name for place in (root, path.parent, path.parent.parent) for name in IMAGE_FOLDERS]
    return spoken_captions(root, content, records, [path.parent, root], image_folders)


def _captions(image: Record, split: str) -> list[Record]:
    more = {"image": image.text("image"), "split": split}
    return [Record(caption.place, {**caption.values, **more}) for caption in image.records("captions")]
