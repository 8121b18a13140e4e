"""The numbers of a run as MLflow's metrics: a few curves with a point an epoch, and single values, at step 0.

Recalls are in per cent, under short names: s2i is speech to image, i2s image to speech. MLflow sorts charts into
sections by what is left of a name's last slash; a single value has no slash, and is shown as a bar.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from sia.run.row_files import Row
from sia.run.selection import selection_value
from sia.run.steps import StepRow

SELECTION, RATE, STAGE = "selection/R_at_10", "selection/learning_rate", "selection/stage"
BEST, HOURS = "best R10", "hours trained"
WAYS = {"speech_to_image": "s2i", "image_to_speech": "i2s"}
TESTED = tuple(f"test R10 {way}" for way in WAYS.values())
# Of an epoch; those of every epoch are in metrics.jsonl.
NO_CURVES = ("R_at_1", "R_at_5", "median_rank", "mean_rank", "seconds")
OF_TEST = ("R_at_1", "R_at_5", "R_at_10", "median_rank")
ROWS_TAG = "sia.rows"


class Point(NamedTuple):
    """One metric value; the same point logged twice is one point in MLflow."""

    key: str
    value: float
    timestamp_ms: int
    step: int


def curves(rows: list[Row]) -> list[list[Point]]:
    """Each row's points: of an epoch those of its curves, with the stage and the rate that explain them."""
    return [_of_epoch(row) if "stage_epoch" in row else [] for row in rows]


def selection_curve(rows: list[Row]) -> list[list[Point]]:
    """Each row's value by which the best epoch is chosen."""
    return [_points(row, _selecting(row), row["epoch"]) if "stage_epoch" in row else [] for row in rows]


def _of_epoch(row: Row) -> list[Point]:
    shown = [key for key in row if "/" in key and key.rpartition("/")[2] not in NO_CURVES]
    told = {_named(key): _value(key, row[key]) for key in shown}
    return _points(row, {**told, STAGE: row["stage"], **_selecting(row)}, row["epoch"])


def _selecting(row: Row) -> dict[str, float]:
    return {SELECTION: _value(SELECTION, selection_value(row))}


def single(rows: list[Row], has_ended: bool) -> list[Point]:
    """The best epoch's value by which it is chosen (as `sia.run.selection` tells), what the latest test of the best
    checkpoint measured, and once it has ended, how long it trained.
    """
    epochs, tests = [row for row in rows if "stage_epoch" in row], [row for row in rows if "stage_epoch" not in row]
    if not epochs:
        return []
    best = max(epochs, key=selection_value)
    points = _points(best, {BEST: _value(SELECTION, selection_value(best))}, 0)
    for row in tests[-1:]:
        shown = [key for key in row if key.count("/") == 2 and key.rpartition("/")[2] in OF_TEST]
        points += _points(row, {_named(key, " "): _value(key, row[key]) for key in shown}, 0)
    hours = sum(row.get("train/seconds", 0.0) for row in epochs) / 3600
    return points + _points(epochs[-1], {HOURS: round(hours, 4)}, 0) * has_ended


def _named(key: str, after_split: str = "/") -> str:
    """validation/speech_to_image/R_at_10 is `validation/R10 s2i`."""
    if key == "train/learning_rate":
        return RATE
    if key.count("/") != 2:
        return key
    split, way, measure = key.split("/")
    return f"{split}{after_split}{measure.replace('R_at_', 'R').replace('_', ' ')} {WAYS.get(way, way)}"


def _value(key: str, value: Any) -> Any:
    is_share = "R_at_" in key and isinstance(value, float)
    return round(100 * value, 2) if is_share else value


def _points(row: Row, values: Mapping[str, Any], step: int) -> list[Point]:
    """Of numbers alone; the timestamp is when the row was written.

    NaN stays NaN in MLflow and infinity becomes the largest float.
    """
    points = []
    for key, value in values.items():
        try:
            if isinstance(value, (int, float)):
                points.append(Point(key, float(value), time_ms(row), step))
        except OverflowError:  # a whole number of hundreds of digits
            continue
    return points


def time_ms(row: Row) -> int:
    return int(row["time"] * 1000)


def a_minute_apart(rows: Iterable[StepRow], since: float) -> list[StepRow]:
    """Of the rows those that a minute lies between: three days are 4,300, and a short run has its epochs."""
    kept = []
    for row in rows:
        if row.time - since >= 60:
            kept.append(row)
            since = row.time
    return kept


def step_points(rows: list[StepRow]) -> list[Point]:
    """Their metrics, by the step of the run."""
    return [Point(key, value, int(row.time * 1000), row.step) for row in rows for key, value in row.measures.items()]


def rows_mark(rows: list[Row]) -> str:
    """Which rows have been mirrored: their number and a hash of them."""
    return f"{len(rows)} {hashlib.sha256(json.dumps(rows, sort_keys=True).encode()).hexdigest()[:16]}"


def mirrored_count(tags: Mapping[str, str], rows: list[Row]) -> int | None:
    """How many of the rows are in MLflow already; None if it holds rows that are no longer in the file."""
    mark = tags.get(ROWS_TAG)
    if mark is None:
        return 0
    count = int(mark.split()[0])
    return count if rows_mark(rows[:count]) == mark else None
