"""What of a run folder goes into MLflow: parameters, tags, metrics and status, read from its files alone."""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from sia.atomic import read_json
from sia.config import flatten
from sia.models.parameter_counts import image_parameters, speech_parameters
from sia.run.folder import RunFolder
from sia.run.metrics import Row, read_rows
from sia.run.records import Finished, StageDone, StagePlan
from sia.run.selection import selection_value
from sia.run.state import State, ending_of
from sia.trackers.tracker import Ending

Texts = dict[str, str]

RUN_TAG = "sia.run"
STAGE_TAG = "sia.stage"
KIND_TAG, TRIAL = "sia.kind", "trial"
ROWS_TAG = "sia.rows"
ID_TAG, FOLDER_TAG = "sia.id", "sia.folder"
ENDED_TAG = "sia.ended"  # why a run did not finish
PARENT_TAG = "mlflow.parentRunId"
BEST = "best/R_at_10"  # R@10 is no legal name in MLflow
# Not its statistics: forty numbers that nobody compares runs by.
CORPUS_KEYS = ("name", "identity", "held_out", "short_side", "num_images", "num_captions")


class Point(NamedTuple):
    """One metric value; the same point logged twice is one point in MLflow."""

    key: str
    value: float
    timestamp_ms: int
    step: int


def trial_parameters(run: RunFolder) -> Texts:
    """What decides the run and never changes: configuration, chain of stages, sizes, corpus."""
    experiment = run.experiment()
    stages = [stage.model_dump(mode="json") for stage in run.planned_stages()]
    corpus = {key: value for key, value in (read_json(run.corpus) or {}).items() if key in CORPUS_KEYS}
    values = {**experiment.model_dump(mode="json"), "stages": stages, "corpus": corpus}
    return _texts({**flatten(values), **_identity(run)})


def stage_parameters(run: RunFolder, number: int) -> Texts:
    """One stage's settings and the checkpoint that it started from."""
    plan = StagePlan.read(run.stage(number).plan)
    return _texts({**(flatten(plan.model_dump(mode="json")) if plan else {}), **_identity(run), "stage_number": number})


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


def trial_tags(run: RunFolder) -> Texts:
    """What another job of the same run may change: commit, host, job, world size, outcome."""
    jobs = read_rows(run.provenance)
    job = jobs[-1] if jobs else {}
    finished = Finished.read(run.finished)
    outcome = finished.model_dump(exclude={"test"}) if finished else {}
    tags = {RUN_TAG: f"{run.study}/{run.name}", KIND_TAG: TRIAL, FOLDER_TAG: str(run.path.absolute())}
    tags["mlflow.user"] = _owner(run.config)
    if commit := job.get("git_commit"):
        tags["mlflow.source.git.commit"] = commit
    return _texts({**flatten({"provenance": job, "finished": outcome}), **tags})


def _owner(path: Path) -> str:
    try:
        return path.owner()
    except KeyError:  # a container's user without a name
        return str(path.stat().st_uid)


def stage_tags(run: RunFolder, number: int) -> Texts:
    """Which stage it is, and how it ended."""
    ended = StageDone.read(run.stage(number).done)
    done = ended.model_dump(exclude={"rows"}) if ended else {}
    own = {RUN_TAG: f"{run.study}/{run.name}", KIND_TAG: "stage", STAGE_TAG: number}
    return _texts({**flatten({"done": done}), **own})


def stage_name(run: RunFolder, number: int) -> str:
    """'stage 2 from epoch 59', or 'stage 1' for one that started from random weights."""
    plan = StagePlan.read(run.stage(number).plan)
    origin = plan.start_epoch if plan else None
    return f"stage {number}" if origin is None else f"stage {number} from epoch {origin}"


def stage_numbers(run: RunFolder, rows: list[Row]) -> list[int]:
    """The stages that have begun."""
    plans = run.path.glob("stages/*/plan.json")
    begun = {int(plan.parent.name) for plan in plans if plan.parent.name.isdecimal()}
    return sorted(begun | {row["stage"] for row in rows})


def points(rows: list[Row], first: int = 0) -> list[Point]:
    """The metrics of the rows from index `first` on: step = epoch, timestamp = when the row was written.

    A key that an earlier row of all `rows` gave for the same step (a checkpoint tested again) is left out.
    """
    seen: set[tuple[str, int]] = set()
    fresh: list[Point] = []
    for index, row in enumerate(rows):
        new = [point for point in _row_points(row) if (point.key, point.step) not in seen]
        seen.update((point.key, point.step) for point in new)
        fresh += new if index >= first else []
    return fresh


def _row_points(row: Row) -> list[Point]:
    # NaN stays NaN in MLflow and infinity becomes the largest float; what is no number there is no metric.
    time_ms, step = _time_ms(row), row["epoch"]
    numbers = {key: _number(value) for key, value in row.items() if "/" in key}
    return [Point(key, value, time_ms, step) for key, value in numbers.items() if value is not None]


def _number(value: Any) -> float | None:
    try:
        return float(value) if isinstance(value, (int, float)) else None
    except OverflowError:  # a whole number of hundreds of digits
        return None


def best_points(rows: list[Row], first: int = 0) -> Iterator[Point]:
    """`best/R_at_10` from row index `first` on: a point at each epoch that is the best so far.

    As `sia.run.selection` chooses: the mean of both directions on validation, on test where there is none.
    """
    best = float("-inf")
    for index, row in enumerate(rows):
        # The row of the best checkpoint on the test split chooses nothing.
        if "stage_epoch" in row and (value := selection_value(row)) > best:
            best = value
            if index >= first:
                yield Point(BEST, value, _time_ms(row), row["epoch"])


def _time_ms(row: Row) -> int:
    return int(row["time"] * 1000)


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


def trial_ending(run: RunFolder) -> Ending:
    """How the run ended by its markers; RUNNING where it has none."""
    found = ending_of(run)
    if found is None:
        return Ending("RUNNING")
    if found.state == State.FINISHED:
        return Ending("FINISHED", modified_ms(run.finished))
    if found.state == State.STOPPED:
        return Ending("KILLED", modified_ms(run.stopped), _text(f"stopped {found.error}"))
    # MLflow refuses longer tags.
    return Ending("FAILED", modified_ms(run.stage(found.stage).failed), _text(found.error)[:5000])


def stage_ending(run: RunFolder, number: int) -> Ending:
    """The same for one stage."""
    ended_ms = modified_ms(run.stage(number).done)
    return trial_ending(run) if ended_ms is None else Ending("FINISHED", ended_ms)


def closed(found: Ending, closing: Ending | None, rows: list[Row], files: Iterable[Path]) -> Ending:
    """How a run ended that nobody trains any more: as its markers say, else as `closing`, at its last sign of life.

    That is its last row; without one, the time of the latest of its `files`.
    """
    if closing is None or found.status != "RUNNING":
        return found
    signs = [_time_ms(row) for row in rows] or [modified_ms(path) or 0 for path in files]
    return closing._replace(ended_ms=max(signs, default=None))


def modified_ms(path: Path) -> int | None:
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
