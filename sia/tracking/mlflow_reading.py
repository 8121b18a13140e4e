"""A run folder, read and checked as a whole before any of it goes into MLflow."""

import math
from collections.abc import Iterable
from typing import Any, NamedTuple

from sia.errors import UserError
from sia.run_folder import RunFolder
from sia.tracking import mlflow_values as values
from sia.tracking.metrics_log import Row, read_rows
from sia.tracking.run_id import run_id

# Whole numbers from the first to the second of these.
WHOLE = {"stage": (1, 10**6), "epoch": (0, 2**31)}
LAST_SECOND = 1e11  # of the year 5138


class Part(NamedTuple):
    """What one MLflow run holds: the trial's, or a stage's. `began_ms` is in Unix milliseconds."""

    name: str
    began_ms: int | None
    rows: list[Row]
    parameters: values.Texts
    tags: values.Texts
    ending: values.Ending


class Reading(NamedTuple):
    """A run's id, its trial, and the stages that have begun by their numbers."""

    id: str
    trial: Part
    stages: dict[int, Part]


def read_run(run: RunFolder, closing: values.Ending | None = None) -> Reading:
    """All of it; `closing` is how a run ended that nobody trains any more, where its files do not tell.

    Raises UserError that names the file which is damaged, OSError for one that cannot be read.
    """
    rows = checked_rows(run)
    stages = {number: _stage(run, number, rows, closing) for number in values.stage_numbers(run, rows)}
    files = [run.config, *run.path.glob("stages/*/plan.json"), *run.path.glob("stages/*/job.json")]
    ending = values.closed(values.trial_ending(run), closing, rows, files)
    parameters, began_ms = values.trial_parameters(run), values.modified_ms(run.config)
    identity = run_id(run)  # the last, so that a folder that is damaged is left as it is
    tags = {**values.trial_tags(run), values.ID_TAG: identity}
    marked = {number: stage._replace(tags={**stage.tags, values.ID_TAG: identity}) for number, stage in stages.items()}
    return Reading(identity, Part(run.name, began_ms, rows, parameters, tags, ending), marked)


def _stage(run: RunFolder, number: int, rows: list[Row], closing: values.Ending | None) -> Part:
    own, plan = [row for row in rows if row.get("stage") == number], run.stage(number).plan
    ending = values.closed(values.stage_ending(run, number), closing, own, [plan, run.stage(number).job])
    texts = values.stage_parameters(run, number), values.stage_tags(run, number)
    return Part(values.stage_name(run, number), values.modified_ms(plan), own, *texts, ending)


def checked_rows(run: RunFolder) -> list[Row]:
    """The rows of metrics.jsonl. Raises UserError that names the line where a place or a time is no number."""
    rows = read_rows(run.metrics)
    for number, row in enumerate(rows, start=1):
        for key in _wrong_keys(row):
            wrong = f"line {number} has {key} {str(row[key])[:40]!r}"
            raise UserError(f"{run.metrics}: {wrong}, no such number; delete that line or restore the file")
    return rows


def _wrong_keys(row: Row) -> Iterable[str]:
    for key, (least, most) in WHOLE.items():
        if key in row and not (isinstance(row[key], int) and least <= row[key] <= most):
            yield key
    if "time" in row and not _is_time(row["time"]):
        yield "time"


def _is_time(value: Any) -> bool:
    return isinstance(value, (int, float)) and abs(value) < LAST_SECOND and math.isfinite(value)
