"""Any corpus as one table: a CSV or JSON-lines file whose rows are captions."""

import csv
import io
import json
from collections.abc import Iterable, Iterator
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
    captions = collect(_captions(rows, path.parent))
    present = {caption.split for caption in captions}
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


def _captions(rows: Iterable[Record], folder: Path) -> Iterator[tuple[str, SpokenCaption]]:
    """Raises UserError that names the line where an image gets a second split or path."""
    image_of: dict[str, tuple[str, str]] = {}
    for row in rows:
        split = row.one_of("split", SPLIT_OF)
        values = {name: row.text(name) for name in COLUMNS} | {name: row.optional(name) for name in OPTIONAL_COLUMNS}
        paths = {name: located(folder, values[name]) for name in ("speech_path", "image_path")}
        caption = SpokenCaption(**{**values, **paths, "split": split})
        first_split, first_path = image_of.setdefault(caption.image_id, (split, caption.image_path))
        if first_split != split:
            raise UserError(
                f"{row.place}: image {caption.image_id!r} is in split {split} here and in {first_split} before; "
                "give each image one split"
            )
        if first_path != caption.image_path:
            raise UserError(f"{row.place}: image {caption.image_id!r} has another path than before; give it one path")
        yield row.place, caption
