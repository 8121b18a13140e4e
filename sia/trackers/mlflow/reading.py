"""A run folder, read and checked as a whole before any of it goes into MLflow."""

from typing import NamedTuple

from sia.run.folder import RunFolder
from sia.run.metrics import Row
from sia.run.rows import rows_of
from sia.trackers.mlflow import values
from sia.trackers.run_id import run_id
from sia.trackers.tracker import Ending


class Part(NamedTuple):
    """What one MLflow run holds: the trial's, or a stage's. `began_ms` is in Unix milliseconds."""

    name: str
    began_ms: int | None
    rows: list[Row]
    parameters: values.Texts
    tags: values.Texts
    ending: Ending


class Reading(NamedTuple):
    """A run's id, its trial, and the stages that have begun by their numbers."""

    id: str
    trial: Part
    stages: dict[int, Part]


def read_run(run: RunFolder, closing: Ending | None = None) -> Reading:
    """All of it; `closing` is how a run ended that nobody trains any more, where its files do not tell.

    Raises UserError that names the file which is damaged, OSError for one that cannot be read.
    """
    rows = rows_of(run)
    stages = {number: _stage(run, number, rows, closing) for number in values.stage_numbers(run, rows)}
    files = [run.config, *run.path.glob("stages/*/plan.json"), *run.path.glob("stages/*/job.json")]
    ending = values.closed(values.trial_ending(run), closing, rows, files)
    parameters, began_ms = values.trial_parameters(run), values.modified_ms(run.config)
    identity = run_id(run)  # the last, so that a folder that is damaged is left as it is
    tags = {**values.trial_tags(run), values.ID_TAG: identity}
    marked = {number: stage._replace(tags={**stage.tags, values.ID_TAG: identity}) for number, stage in stages.items()}
    return Reading(identity, Part(run.name, began_ms, rows, parameters, tags, ending), marked)


def _stage(run: RunFolder, number: int, rows: list[Row], closing: Ending | None) -> Part:
    own, plan = [row for row in rows if row["stage"] == number], run.stage(number).plan
    ending = values.closed(values.stage_ending(run, number), closing, own, [plan, run.stage(number).job])
    texts = values.stage_parameters(run, number), values.stage_tags(run, number)
    return Part(values.stage_name(run, number), values.modified_ms(plan), own, *texts, ending)
