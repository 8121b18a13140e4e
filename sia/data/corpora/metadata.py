"""Metadata files as corpora bring them: JSON records and lines of words, each with the place that a fault names."""

import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from sia.data.manifest import SpokenCaption
from sia.errors import UserError

# Enough to find the folder that holds a corpus's files, though some of them are missing.
NAMES_TO_LOOK_FOR = 20


class Record(NamedTuple):
    """One record of a metadata file, and its place there for a person: "train.json: record 3 of `data`"."""

    place: str
    values: dict[str, Any]

    def text(self, key: str) -> str:
        """The value at `key`, a number as text. Raises UserError where there is none."""
        if found := self.optional(key):
            return found
        raise UserError(f"{self.place} is missing {key!r}; mend or remove it")

    def optional(self, key: str) -> str:
        """The value at `key`, or "" where it is missing or null. Raises UserError where it is no text or number."""
        value = self.values.get(key)
        if value is None:
            return ""
        if isinstance(value, bool) or not isinstance(value, (str, int, float)):
            raise UserError(f"{self.place} has a {type(value).__name__} at {key!r}; make it a text")
        return str(value).strip()

    def records(self, key: str) -> list["Record"]:
        """The records in the list at `key`. Raises UserError where it is no list of records."""
        value = self.values.get(key)
        if not isinstance(value, list):
            raise UserError(f"{self.place} has no list {key!r}; mend it, or fetch the file again")
        return [as_record(f"{self.place}, {key} {number}", item) for number, item in enumerate(value)]

    def one_of(self, key: str, values: dict[str, str]) -> str:
        """What the text at `key` stands for. Raises UserError that lists the texts there may be."""
        if (found := self.text(key)) in values:
            return values[found]
        raise UserError(f"{self.place} has {key} {found!r}; use one of {', '.join(values)}")


def as_record(place: str, value: Any) -> Record:
    """Raises UserError for a value that is no JSON object."""
    if not isinstance(value, dict):
        raise UserError(f"{place} is no record but a {type(value).__name__}; mend or remove it")
    return Record(place, value)


def read_json_records(path: Path, key: str, owner: str) -> tuple[dict[str, Any], list[Record]]:
    """The file's object, and the records in its list `key`.

    owner: whose metadata the file should be, for the fault. Raises UserError that names the file, or its record.
    """
    try:
        content = json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: not {owner} metadata ({error}); fetch the file again") from None
    records = content.get(key) if isinstance(content, dict) else None
    if not isinstance(records, list):
        raise UserError(f"{path}: not {owner} metadata (no list `{key}`); fetch the file again")
    return content, [as_record(f"{path}: record {number} of `{key}`", item) for number, item in enumerate(records)]


def read_text(path: Path) -> str:
    """A text file in UTF-8, with or without a byte order mark. Raises UserError where it cannot be read."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 (byte {error.start}); save it as UTF-8") from None
    except OSError as error:
        raise UserError(f"{path}: cannot read it ({error.strerror}); fetch it again or mend its rights") from None


def read_lines(path: Path) -> Iterator[tuple[str, str]]:
    """Each line that is not blank, after its place: ("utt2wav, line 3", "text")."""
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        if line.strip():
            yield f"{path}, line {number}", line.strip()


def read_pairs(path: Path) -> dict[str, str]:
    """The lines "key value" of a file; a value may hold spaces. Raises UserError for one without, or a key with two."""
    pairs: dict[str, str] = {}
    for place, line in read_lines(path):
        key, *value = line.split(maxsplit=1)
        if not value:
            raise UserError(f"{place}: {line!r} has no second word; mend or remove it")
        if pairs.setdefault(key, value[0]) != value[0]:
            raise UserError(f"{place}: {key!r} is there twice, with {pairs[key]!r} before; remove one")
    return pairs


def located(folder: Path, name: str) -> str:
    """The path of the file `name` under `folder`.

    Metadata write names with a leading slash or with "..": the slash counts only where such a file is there, and
    "a/../b" is b where there is no folder a.
    """
    if name.startswith("/") and not os.path.exists(name):
        name = name.lstrip("/")
    path = os.path.join(folder, name)
    return path if ".." not in name or os.path.exists(path) else os.path.normpath(path)


def first_file(names: Iterable[str], folders: Iterable[Path]) -> Path | None:
    """The first file there is, of the names in each folder in turn."""
    names = list(names)
    return next((folder / name for folder in folders for name in names if (folder / name).is_file()), None)


def collect(placed: Iterable[tuple[str, SpokenCaption]]) -> list[SpokenCaption]:
    """Captions, each after its place in the metadata. Raises UserError that names the place of a repeated utterance."""
    captions: dict[str, SpokenCaption] = {}
    for place, caption in placed:
        if caption.utterance_id in captions:
            raise UserError(f"{place}: utterance {caption.utterance_id!r} is there twice; remove one")
        captions[caption.utterance_id] = caption
    return list(captions.values())


def spoken_captions(
    root: Path, content: dict[str, Any], records: list[Record], speech: list[Path], images: list[Path]
) -> Iterator[tuple[str, SpokenCaption]]:
    """The captions of records {uttid, wav, image, split}, and speaker and text where they have them, with their places.

    The files lie in the folders that `content` names, where these are here; else in the first of the folders `speech`
    and `images` that holds some of them.
    """
    speech_folder = _folder_of(records, "wav", [*_named_folder(root, content.get("audio_base_path")), *speech])
    image_folder = _folder_of(records, "image", [*_named_folder(root, content.get("image_base_path")), *images])
    for record in records:
        caption = SpokenCaption(
            utterance_id=record.text("uttid"),
            image_id=record.text("image"),
            speech_path=located(speech_folder, record.text("wav")),
            image_path=located(image_folder, record.text("image")),
            split=record.text("split"),
            speaker=record.optional("speaker"),
            language="en",
            text=record.optional("text"),
        )
        yield record.place, caption


def _named_folder(root: Path, named: Any) -> list[Path]:
    return [root / named] if named and isinstance(named, str) and (root / named).is_dir() else []


def _folder_of(records: list[Record], key: str, folders: list[Path]) -> Path:
    """The first of the folders that holds one of the first files named at `key`, or else the first folder."""
    names = list(dict.fromkeys(record.text(key) for record in records))[:NAMES_TO_LOOK_FOR]
    holding = (folder for folder in folders if any(os.path.exists(located(folder, name)) for name in names))
    return next(holding, folders[0])
