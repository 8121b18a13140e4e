"""A run folder, read and checked as a whole, as what MLflow holds of it: parameters, tags, metrics and status."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from sia.atomic import read_json
from sia.config import flatten
from sia.models.sizes import image_parameters, speech_parameters
from sia.run.folder import RunFolder
from sia.run.mended import rows_of
from sia.run.records import Failed, Finished, StageDone, StagePlan, Stopped, Study
from sia.run.row_files import Row, read_rows
from sia.run.state import State, ending_of
from sia.trackers.mlflow.note import NOTE_TAG, STATES, note_of
from sia.trackers.mlflow.points import Point, curves, selection_curve, single, time_ms
from sia.trackers.run_id import run_id
from sia.trackers.tracker import Ending

Texts = dict[str, str]

RUN_TAG = "sia.run"
STAGE_TAG = "sia.stage"
KIND_TAG, TRIAL = "sia.kind", "trial"
STEPS_TAG = "sia.steps"  # the last step of which it holds a row, and that row's time
ID_TAG, FOLDER_TAG = "sia.id", "sia.folder"
ROOT_TAG = "sia.root"  # the id of the folder of all studies
ENDED_TAG = "sia.ended"  # why a run did not finish
STATE_TAG, CHAIN_TAG = "state", "stages"
USER_TAG = "mlflow.user"
PARENT_TAG = "mlflow.parentRunId"
# Not its statistics: forty numbers that nobody compares runs by.
CORPUS_KEYS = ("name", "identity", "held_out", "short_side", "num_images", "num_captions")


class Part(NamedTuple):
    """What one MLflow run holds, the trial's or a stage's: `curves` the points of each of its rows, `newest` those of
    which the last value alone is of interest. It began to train at `began_ms` (Unix milliseconds).
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


def read_run(run: RunFolder, closing: Ending | None = None) -> Reading | None:
    """All of it; None of a run that has neither begun to train nor ended: its waiting would count as training.

    `closing` is how a run ended that nobody trains any more, where its files do not tell. Raises UserError that names
    the file which is damaged, OSError for one that cannot be read.
    """
    rows, jobs, plans = rows_of(run), read_rows(run.provenance), list(run.path.glob("stages/*/plan.json"))
    for plan in plans:
        StagePlan.read(plan)
    begun = sorted({row["stage"] for row in (*rows, *jobs)})
    stages = {number: _stage(run, number, rows, jobs, closing) for number in begun}
    marked = _ending(run)
    ending = _closed(marked, closing, rows, [run.config, *plans, *run.path.glob("stages/*/job.json")])
    began_ms = _began_ms(rows, jobs) or marked.ended_ms
    texts = _trial_parameters(run), _trial_tags(run, rows, jobs, ending)
    trial = Part(run.name, began_ms, curves(rows), single(rows, ending.status != "RUNNING"), *texts, ending)
    if began_ms is None:
        return None
    # The last, so that a folder that is damaged is left as it is.
    ids = {ID_TAG: run_id(run), ROOT_TAG: run_id(RunFolder(run.path.parents[1]))}
    for part in (trial, *stages.values()):
        part.tags.update(ids)
    return Reading(ids[ID_TAG], rows, trial, stages)


def _began_ms(rows: list[Row], jobs: list[Row]) -> int | None:
    """When the first job began, or the first epoch."""
    times = [row["time"] - row.get("train/seconds", 0.0) for row in rows[:1]]
    return min((int(1000 * time) for time in (*times, *(job["time"] for job in jobs if "time" in job))), default=None)


def _stage(run: RunFolder, number: int, rows: list[Row], jobs: list[Row], closing: Ending | None) -> Part:
    folder, own = run.stage(number), [row for row in rows if row["stage"] == number]
    plan, done = StagePlan.read(folder.plan), StageDone.read(folder.done)
    epochs = [row for row in own if "stage_epoch" in row]
    ending = _ending(run) if done is None else Ending("FINISHED", max(map(time_ms, epochs), default=None))
    ending = _closed(ending, closing, own, [folder.plan, folder.job])
    origin = plan.start_epoch if plan else None
    name = f"stage {number}" if origin is None else f"stage {number} from epoch {origin}"
    parameters = {**(flatten(plan.model_dump(mode="json")) if plan else {}), **_identity(run), "stage_number": number}
    ended = done.model_dump(exclude={"rows"}) if done else {}
    tags = {RUN_TAG: f"{run.study}/{run.name}", KIND_TAG: "stage", STAGE_TAG: number, STATE_TAG: STATES[ending.status]}
    began_ms = _began_ms(own, [job for job in jobs if job["stage"] == number])
    texts = _texts(parameters), _texts({**flatten({"done": ended}), **tags})
    return Part(name, began_ms, selection_curve(own), single(epochs, ending.status != "RUNNING"), *texts, ending)


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


def _trial_tags(run: RunFolder, rows: list[Row], jobs: list[Row], ending: Ending) -> Texts:
    """What another job of the same run may change: commit, host, job, world size, outcome."""
    job, finished = (jobs or [{}])[-1], Finished.read(run.finished)
    outcome = finished.model_dump(exclude={"test"}) if finished else {}
    tags = {RUN_TAG: f"{run.study}/{run.name}", KIND_TAG: TRIAL, FOLDER_TAG: run.path.absolute()}
    told = {STATE_TAG: STATES[ending.status], CHAIN_TAG: chain_text(run), NOTE_TAG: note_of(run, rows, ending)}
    source = source_tags(Study.read_sound(run.path.parent / "study.json") or Study())
    commit = {"mlflow.source.git.commit": job.get("git_commit") or None}
    own = {**tags, **told, **source, USER_TAG: owner_of(run.config), **commit}
    return _texts({**flatten({"provenance": job, "finished": outcome}), **own})


def owner_of(path: Path) -> str:
    """The name of the user whose file it is."""
    try:
        return path.owner()
    except KeyError:  # a container's user without a name
        return str(path.stat().st_uid)


def source_tags(study: Study) -> Texts:
    """The grid file, or what trains a run without one."""
    return {"mlflow.source.name": study.grid or "jobs/train.py", "mlflow.source.type": "LOCAL"}


def chain_text(run: RunFolder) -> str:
    """Its stages with those that were added by hand, such as `120 calr, then 30 calr x 0.5`."""
    rates = ((stage, f" x {stage.lr_scale:g}" if stage.lr_scale != 1 else "") for stage in run.planned_stages())
    return ", then ".join(f"{stage.epochs} {stage.schedule.name}{rate}" for stage, rate in rates)


def _ending(run: RunFolder) -> Ending:
    """How the run ended by its markers; RUNNING where it has none."""
    found = ending_of(run)
    if found is None:
        return Ending("RUNNING")
    if found.state == State.FINISHED:
        return Ending("FINISHED", _told_ms(Finished, run.finished))
    if found.state == State.STOPPED:
        return Ending("KILLED", _told_ms(Stopped, run.stopped), _text(f"stopped {found.error}"))
    # MLflow refuses longer tags.
    return Ending("FAILED", _told_ms(Failed, run.stage(found.stage).failed), _text(found.error)[:5000])


def _closed(found: Ending, closing: Ending | None, rows: list[Row], files: Iterable[Path]) -> Ending:
    """How a run ended that nobody trains any more: as its markers say, else as `closing`, at its last sign of life.

    That is its last row; without one, the time of the latest of its `files`.
    """
    if closing is None or found.status != "RUNNING":
        return found
    signs = [time_ms(row) for row in rows] or [_modified_ms(path) or 0 for path in files]
    return closing._replace(ended_ms=max(signs, default=None))


def _told_ms(kind: type[Finished | Stopped | Failed], path: Path) -> int | None:
    """When the marker was written: it tells that itself, wherever it was copied to since."""
    marker = kind.read(path)
    return int(1000 * marker.time) if marker is not None and marker.time is not None else _modified_ms(path)


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
