"""Any corpus as one table: a CSV or JSON-lines file whose rows are captions."""

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path

from sia.data.corpora.held_out import hold_out
from sia.data.corpora.records import Record, as_record, collect, located, read_lines, read_text
from sia.data.manifest import SPLITS, Reading, SpokenCaption
from sia.errors import UserError

COLUMNS = ("utterance_id", "image_id", "speech_path", "image_path", "split")
OPTIONAL_COLUMNS = ("speaker", "language", "text")
SUFFIXES = (".csv", ".jsonl")
SPLIT_OF = {**{split: split for split in SPLITS}, "val": "validation", "dev": "validation"}
CURE = "give a .csv or .jsonl file, or a folder with one of them, with --root"


def read(root: Path) -> Reading:
    """The captions of the table `root`, or of the one in the folder `root`; other columns are ignored.

    Relative paths start at the table's folder. A table of train and test alone lends seeded images of train to
    validation. Raises UserError that names the file, and the line, at fault.
    """
    path = _table(root)
    rows = _csv_rows(path) if path.suffix.lower() == ".csv" else _json_rows(path)
    captions = collect(_checked((row.place, _caption(row, path.parent)) for row in rows))
    present = {caption.split for caption in captions}
    if present == {"train", "test"}:
        captions, told = hold_out(captions)
        return Reading(captions, [], notes=(f"no validation split; {told}",))
    missing = [split for split in SPLITS if split not in present]
    return Reading(captions, [], notes=tuple(f"no {split} split" for split in missing))


def _table(root: Path) -> Path:
    if root.is_file():
        if root.suffix.lower() not in SUFFIXES:
            raise UserError(f"{root}: neither a .csv nor a .jsonl file; {CURE}")
        return root
    found = sorted(path for path in root.glob("[!.]*") if path.suffix.lower() in SUFFIXES and path.is_file())
    if not found:
        raise UserError(f"{root}: no .csv or .jsonl file there; {CURE}")
    if len(found) > 1:
        names = ", ".join(path.name for path in found)
        raise UserError(f"{root}: several tables ({names}); give the path of one with --root")
    return found[0]


def _csv_rows(path: Path) -> Iterator[Record]:
    lines = csv.reader(io.StringIO(read_text(path), newline=""), skipinitialspace=True, strict=True)
    try:
        columns = [name.strip() for name in next(lines, [])]
        _check_columns(path, columns)
        for values in lines:
            place = f"{path}, line {lines.line_num}"
            if len(values) > len(columns):
                raise UserError(f"{place} has {len(values)} values for {len(columns)} columns; quote those with commas")
            if values:
                yield Record(place, dict(zip(columns, values, strict=False)))
    except csv.Error as error:
        raise UserError(f"{path}, line {lines.line_num}: no row of CSV ({error}); mend or remove it") from None


def _check_columns(path: Path, columns: list[str]) -> None:
    missing = [name for name in COLUMNS if name not in columns]
    if missing:
        needed = ", ".join(COLUMNS)
        raise UserError(f"{path}, line 1: no column {', '.join(missing)}; the first line must name {needed}")
    twice = [name for name in (*COLUMNS, *OPTIONAL_COLUMNS) if columns.count(name) > 1]
    if twice:
        raise UserError(f"{path}, line 1: column {twice[0]} is there twice; remove one")


def _json_rows(path: Path) -> Iterator[Record]:
    for place, line in read_lines(path):
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise UserError(f"{place}: no JSON ({error}); write one object a line") from None
        yield as_record(place, value)


def _caption(row: Record, folder: Path) -> SpokenCaption:
    split = row.text("split")
    if split not in SPLIT_OF:
        raise UserError(f"{row.place} has split {split!r}; use one of {', '.join(SPLIT_OF)}")
    return SpokenCaption(
        utterance_id=row.text("utterance_id"),
        image_id=row.text("image_id"),
        speech_path=located(folder, row.text("speech_path")),
        image_path=located(folder, row.text("image_path")),
        split=SPLIT_OF[split],
        speaker=row.optional("speaker"),
        language=row.optional("language"),
        text=row.optional("text"),
    )


def _checked(placed: Iterator[tuple[str, SpokenCaption]]) -> Iterator[tuple[str, SpokenCaption]]:
    """The same captions. Raises UserError that names the line where an image gets a second split or path."""
    image_of: dict[str, tuple[str, str]] = {}
    for place, caption in placed:
        split, path = image_of.setdefault(caption.image_id, (caption.split, caption.image_path))
        if split != caption.split:
            raise UserError(
                f"{place}: image {caption.image_id!r} is in split {caption.split} here and in {split} before; "
                "give each image one split"
            )
        if path != caption.image_path:
            raise UserError(f"{place}: image {caption.image_id!r} has another path than before; give it one path")
        yield place, caption
