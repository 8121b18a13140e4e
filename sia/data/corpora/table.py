"""Any corpus as one table: a CSV or JSON-lines file whose rows are captions."""

import csv
import io
import json
from collections.abc import Iterable, Iterator
from pathlib import Path

from sia.data.corpora.held_out import hold_out, make_splits
from sia.data.corpora.metadata import Record, as_record, collect, located, read_lines, read_text
from sia.data.manifest import SPLITS, Reading, SpokenCaption
from sia.errors import UserError

COLUMNS = ("audio", "image")
OPTIONAL_COLUMNS = ("utterance_id", "image_id", "split", "speaker", "language", "text")
ALSO_CALLED = {"speech_path": "audio", "image_path": "image"}
SUFFIXES = (".csv", ".jsonl")
SPLIT_OF = {**{split: split for split in SPLITS}, "val": "validation", "dev": "validation"}
CURE = "give a .csv or .jsonl file, or a folder with one of them, with --root"


def read(root: Path) -> Reading:
    """The captions of the table `root`, or of the one in the folder `root`; other columns are ignored.

    Relative paths start at the table's folder. A table without splits is split here; one of train and test alone lends
    seeded images of train to validation. Raises UserError that names the file, and the line, at fault.
    """
    path = _table(root)
    rows = _csv_rows(path) if path.suffix.lower() == ".csv" else _json_rows(path)
    captions = collect(_captions(rows, path.parent))
    present = {caption.split for caption in captions}
    if present == {""}:
        captions, told = make_splits(captions)
        return Reading(captions, [], notes=(told,))
    if present == {"train", "test"}:
        captions, told = hold_out(captions)
        return Reading(captions, [], notes=(f"no validation split; {told}",))
    return Reading(captions, [], notes=tuple(f"no {split} split" for split in SPLITS if split not in present))


def _table(root: Path) -> Path:
    found = [root] if root.is_file() else sorted(path for path in root.glob("[!.]*") if path.is_file())
    tables = [path for path in found if path.suffix.lower() in SUFFIXES]
    if len(tables) > 1:
        names = ", ".join(path.name for path in tables)
        raise UserError(f"{root}: several tables ({names}); give the path of one with --root")
    if not tables:
        problem = "neither a .csv nor a .jsonl file" if root.is_file() else "no .csv or .jsonl file there"
        raise UserError(f"{root}: {problem}; {CURE}")
    return tables[0]


def _csv_rows(path: Path) -> Iterator[Record]:
    text = read_text(path)
    # A spreadsheet writes semicolons where commas mark decimals.
    delimiter = next((mark for mark in ",;\t" if mark in text.partition("\n")[0]), ",")
    lines = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True, strict=True)
    try:
        columns = [_column(name.strip().lower()) for name in next(lines, [])]
        _check_columns(path, columns)
        for values in lines:
            place = f"{path}, line {lines.line_num}"
            if len(values) > len(columns):
                raise UserError(f"{place} has {len(values)} values for {len(columns)} columns; quote those with commas")
            if values:
                yield Record(place, dict(zip(columns, values, strict=False)))
    except csv.Error as error:
        raise UserError(f"{path}, line {lines.line_num}: no row of CSV ({error}); mend or remove it") from None


def _column(name: str) -> str:
    return ALSO_CALLED.get(name, name)


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
        row = as_record(place, value)
        yield Record(place, {_column(key): held for key, held in row.values.items()})


def _captions(rows: Iterable[Record], folder: Path) -> Iterator[tuple[str, SpokenCaption]]:
    """Captions without a split where no row has one. Raises UserError that names the line where only some have, or
    where an image gets a second split or path.
    """
    image_of: dict[str, tuple[str, str]] = {}
    unsplit: bool | None = None
    for row in rows:
        unsplit = not row.optional("split") if unsplit is None else unsplit
        if unsplit and row.optional("split"):
            raise UserError(f"{row.place} has a split, rows before it have none; give all rows one, or none")
        split = "" if unsplit else row.one_of("split", SPLIT_OF)
        caption = _caption(row, folder, split)
        first_split, first_path = image_of.setdefault(caption.image_id, (split, caption.image_path))
        if first_split != split:
            raise UserError(
                f"{row.place}: image {caption.image_id!r} is in split {split} here and in {first_split} before; "
                "give each image one split"
            )
        if first_path != caption.image_path:
            raise UserError(f"{row.place}: image {caption.image_id!r} has another path than before; give it one path")
        yield row.place, caption


def _caption(row: Record, folder: Path, split: str) -> SpokenCaption:
    """Files stand for the names that a row does not give."""
    audio, image = (row.text(name) for name in COLUMNS)
    given = {name: row.optional(name) for name in OPTIONAL_COLUMNS}
    named = {"utterance_id": given["utterance_id"] or audio, "image_id": given["image_id"] or image, "split": split}
    return SpokenCaption(**{**given, **named}, speech_path=located(folder, audio), image_path=located(folder, image))
