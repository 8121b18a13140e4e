"""A run folder, read and checked as a whole, as what MLflow holds of it: parameters, tags, metrics and status.

Curves have a point an epoch: loss, rate and R@10 of the trial, its selecting R@10 of a stage (`selection/R_at_10`).
The other measures are told of the test row, and of the best epoch of what has ended.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from sia.atomic import read_json
from sia.config import flatten
from sia.models.parameter_counts import image_parameters, speech_parameters
from sia.run.folder import RunFolder
from sia.run.metrics import Row, read_rows
from sia.run.records import Finished, StageDone, StagePlan
from sia.run.rows import rows_of
from sia.run.selection import selection_value
from sia.run.state import State, ending_of
from sia.run.steps import StepRow
from sia.trackers.run_id import run_id
from sia.trackers.tracker import Ending

Texts = dict[str, str]

RUN_TAG = "sia.run"
STAGE_TAG = "sia.stage"
KIND_TAG, TRIAL = "sia.kind", "trial"
ROWS_TAG = "sia.rows"
STEPS_TAG = "sia.steps"  # the last step of which it holds a row, and that row's time
ID_TAG, FOLDER_TAG = "sia.id", "sia.folder"
ENDED_TAG = "sia.ended"  # why a run did not finish
PARENT_TAG = "mlflow.parentRunId"
SELECTION, BEST = "selection/R_at_10", "best/R_at_10"  # R@10 is no legal name in MLflow
NO_CURVES = ("R_at_1", "R_at_5", "median_rank", "mean_rank", "seconds")
# Not its statistics: forty numbers that nobody compares runs by.
CORPUS_KEYS = ("name", "identity", "held_out", "short_side", "num_images", "num_captions")


class Point(NamedTuple):
    """One metric value; the same point logged twice is one point in MLflow."""

    key: str
    value: float
    timestamp_ms: int
    step: int


class Part(NamedTuple):
    """What one MLflow run holds, the trial's or a stage's: `curves` the points of each of its rows, `newest` those of
    which the last value alone is of interest. `began_ms` is in Unix milliseconds.
    """

    name: str
    began_ms: int | None
    curves: list[list[Point]]
    newest: list[Point]
    parameters: Texts
    tags: Texts
    ending: Ending


class Reading(NamedTuple):
    """A run's id and its rows, its trial, and the stages that have begun by their numbers."""

    id: str
    rows: list[Row]
    trial: Part
    stages: dict[int, Part]


def read_run(run: RunFolder, closing: Ending | None = None) -> Reading:
    """All of it; `closing` is how a run ended that nobody trains any more, where its files do not tell.

    Raises UserError that names the file which is damaged, OSError for one that cannot be read.
    """
    rows = rows_of(run)
    plans = list(run.path.glob("stages/*/plan.json"))
    begun = {int(plan.parent.name) for plan in plans if plan.parent.name.isdecimal()} | {row["stage"] for row in rows}
    stages = {number: _stage(run, number, rows, closing) for number in sorted(begun)}
    files = [run.config, *plans, *run.path.glob("stages/*/job.json")]
    ending = _closed(_ending(run), closing, rows, files)
    curves = _curves(rows)
    told = {(point.key, point.step) for points in curves for point in points}
    newest = [point for point in _newest(rows, ending) if (point.key, point.step) not in told]
    texts = _trial_parameters(run), _trial_tags(run)
    trial = Part(run.name, _modified_ms(run.config), curves, newest, *texts, ending)
    identity = run_id(run)  # the last, so that a folder that is damaged is left as it is
    for part in (trial, *stages.values()):
        part.tags[ID_TAG] = identity
    return Reading(identity, rows, trial, stages)


def _stage(run: RunFolder, number: int, rows: list[Row], closing: Ending | None) -> Part:
    folder, own = run.stage(number), [row for row in rows if row["stage"] == number]
    plan, done, done_ms = StagePlan.read(folder.plan), StageDone.read(folder.done), _modified_ms(folder.done)
    ending = _ending(run) if done_ms is None else Ending("FINISHED", done_ms)
    ending = _closed(ending, closing, own, [folder.plan, folder.job])
    origin = plan.start_epoch if plan else None
    name = f"stage {number}" if origin is None else f"stage {number} from epoch {origin}"
    parameters = {**(flatten(plan.model_dump(mode="json")) if plan else {}), **_identity(run), "stage_number": number}
    ended = done.model_dump(exclude={"rows"}) if done else {}
    tags = {**flatten({"done": ended}), RUN_TAG: f"{run.study}/{run.name}", KIND_TAG: "stage", STAGE_TAG: number}
    curve = [_selection(row, SELECTION) for row in own]
    return Part(name, _modified_ms(folder.plan), curve, _newest(own, ending), _texts(parameters), _texts(tags), ending)


def _trial_parameters(run: RunFolder) -> Texts:
    """What decides the run and never changes: configuration, chain of stages, sizes, corpus."""
    stages = [stage.model_dump(mode="json") for stage in run.planned_stages()]
    corpus = {key: value for key, value in (read_json(run.corpus) or {}).items() if key in CORPUS_KEYS}
    values = {**run.experiment().model_dump(mode="json"), "stages": stages, "corpus": corpus}
    return _texts({**flatten(values), **_identity(run)})


def _identity(run: RunFolder) -> dict[str, Any]:
    experiment = run.experiment()
    return {
        "pair": experiment.model.pair_name,
        "signature": experiment.signature,
        "speech_parameters": speech_parameters(experiment.model),
        "image_parameters": image_parameters(experiment.model),
        "model.gru_layers": experiment.model.gru_layers,
        "model.latent_size": experiment.model.latent_size,
        "training.seed": experiment.training.seed,
    }


def _trial_tags(run: RunFolder) -> Texts:
    """What another job of the same run may change: commit, host, job, world size, outcome."""
    job, finished = (read_rows(run.provenance) or [{}])[-1], Finished.read(run.finished)
    outcome = finished.model_dump(exclude={"test"}) if finished else {}
    tags = {RUN_TAG: f"{run.study}/{run.name}", KIND_TAG: TRIAL, FOLDER_TAG: run.path.absolute()}
    try:
        owner = run.config.owner()
    except KeyError:  # a container's user without a name
        owner = str(run.config.stat().st_uid)
    own = {**tags, "mlflow.user": owner, "mlflow.source.git.commit": job.get("git_commit") or None}
    return _texts({**flatten({"provenance": job, "finished": outcome}), **own})


def _curves(rows: list[Row]) -> list[list[Point]]:
    """Each row's points, of an epoch those of its curves; a key that an earlier row gave for the same step (a
    checkpoint that is tested again) is left out.
    """
    seen: set[tuple[str, int]] = set()
    curves = []
    for row in rows:
        found = _points(row, row) if "stage_epoch" not in row else _points(row, _without_details(row))
        found += _selection(row, SELECTION)
        curves.append([point for point in found if (point.key, point.step) not in seen])
        seen.update((point.key, point.step) for point in curves[-1])
    return curves


def _newest(rows: list[Row], ending: Ending) -> list[Point]:
    """The best epoch's value by which it is chosen (as `sia.run.selection` tells); once ended, the rest of its recalls.

    The row of the best checkpoint on the test split chooses nothing.
    """
    epochs = [row for row in rows if "stage_epoch" in row]
    if not epochs:
        return []
    best = max(epochs, key=selection_value)
    curves = _without_details(best)
    details = {} if ending.status == "RUNNING" else {key: best[key] for key in best if key not in curves}
    return [*_selection(best, BEST), *_points(best, details)]


def _without_details(row: Row) -> Row:
    return {key: value for key, value in row.items() if key.rpartition("/")[2] not in NO_CURVES}


def _selection(row: Row, key: str) -> list[Point]:
    return _points(row, {key: selection_value(row)}) if "stage_epoch" in row else []


def _points(row: Row, values: Mapping[str, Any]) -> list[Point]:
    """Step = epoch, timestamp = when the row was written; of numbers alone.

    NaN stays NaN in MLflow and infinity becomes the largest float.
    """
    points = []
    for key, value in values.items():
        try:
            if "/" in key and isinstance(value, (int, float)):
                points.append(Point(key, float(value), _time_ms(row), row["epoch"]))
        except OverflowError:  # a whole number of hundreds of digits
            continue
    return points


def _time_ms(row: Row) -> int:
    return int(row["time"] * 1000)


def a_minute_apart(rows: list[StepRow], since: float) -> list[StepRow]:
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


def _ending(run: RunFolder) -> Ending:
    """How the run ended by its markers; RUNNING where it has none."""
    found = ending_of(run)
    if found is None:
        return Ending("RUNNING")
    if found.state == State.FINISHED:
        return Ending("FINISHED", _modified_ms(run.finished))
    if found.state == State.STOPPED:
        return Ending("KILLED", _modified_ms(run.stopped), _text(f"stopped {found.error}"))
    # MLflow refuses longer tags.
    return Ending("FAILED", _modified_ms(run.stage(found.stage).failed), _text(found.error)[:5000])


def _closed(found: Ending, closing: Ending | None, rows: list[Row], files: Iterable[Path]) -> Ending:
    """How a run ended that nobody trains any more: as its markers say, else as `closing`, at its last sign of life.

    That is its last row; without one, the time of the latest of its `files`.
    """
    if closing is None or found.status != "RUNNING":
        return found
    signs = [_time_ms(row) for row in rows] or [_modified_ms(path) or 0 for path in files]
    return closing._replace(ended_ms=max(signs, default=None))


def _modified_ms(path: Path) -> int | None:
    """When a file was last written (Unix milliseconds), None if it is absent."""
    try:
        return path.stat().st_mtime_ns // 1_000_000
    except FileNotFoundError:
        return None


def _texts(values: Mapping[str, Any]) -> Texts:
    # MLflow refuses longer parameters, and databases what is no Unicode.
    return {key: _text(value)[:6000] for key, value in values.items() if value is not None}


def _text(value: Any) -> str:
    return str(value).encode(errors="replace").decode()
