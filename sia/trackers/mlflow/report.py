"""A study's report in MLflow: the artifacts of a run of their own; what leads to it, and says what it found."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from sia.run.records import Study
from sia.trackers.mlflow.note import NOTE_TAG, mark, with_own_note
from sia.trackers.mlflow.values import KIND_TAG, ROOT_TAG, TRIAL, USER_TAG, owner_of, source_tags
from sia.trackers.mlflow.view import NOTE

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

REPORT, FILES_TAG = "report", "sia.files"
PAGE, TEXT = "report.html", "report.md"


def keep(client: MlflowClient, experiment_id: str, root_id: str, study: Study, folder: Path) -> None:
    """Bring the report's files up to date, and the grid file; of each folder of studies, by its id, another report.

    The experiment's description and those of its runs lead to it.
    """
    files = [path for path in (*sorted(folder.glob("*")), Path(study.grid)) if path.is_file()]
    held = mark(str([(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in files]))
    own = (one for one in reports(client, experiment_id) if one.data.tags[ROOT_TAG] == root_id)
    run = next(own, None)
    if run is not None and run.data.tags.get(FILES_TAG) == held:
        return
    opening = _opening(folder / TEXT) or study.question
    if run is None:
        tags = {KIND_TAG: REPORT, ROOT_TAG: root_id, USER_TAG: owner_of(folder), **source_tags(study)}
        run = client.create_run(experiment_id, tags=with_own_note({**tags, NOTE_TAG: opening}, {}), run_name=REPORT)
    for path in files:
        client.log_artifact(run.info.run_id, str(path))
    for tag in with_own_note({NOTE_TAG: opening}, run.data.tags).items():
        client.set_tag(run.info.run_id, *tag)
    client.set_terminated(run.info.run_id)
    describe(client, experiment_id, study.question, opening)
    _lead_from_trials(client, experiment_id, root_id, link(run))
    client.set_tag(run.info.run_id, FILES_TAG, held)  # last: what a fault keeps from it is made up for


def describe(client: MlflowClient, experiment_id: str, question: str, opening: str = "") -> None:
    """The experiment's description, unless a person has written another: the question, with the finding where one
    report is there, and the way to it; of several people's reports the way to each.
    """
    kept = reports(client, experiment_id)
    links = [f"{link(one)}, by {one.data.tags.get(USER_TAG, 'another')}" for one in kept]
    told = "\n\n".join(filter(None, (opening if len(kept) == 1 else question, *links, NOTE)))
    known = client.get_experiment(experiment_id).tags
    for tag in with_own_note({NOTE_TAG: told}, known).items():
        client.set_experiment_tag(experiment_id, *tag)


def reports(client: MlflowClient, experiment_id: str) -> list[Run]:
    """The runs that hold reports, each of a folder of studies of its own."""
    query = f"tags.`{KIND_TAG}` = '{REPORT}'"
    return list(client.search_runs([experiment_id], query, order_by=["attributes.start_time ASC"]))


def link(report: Run) -> str:
    """To its page, in MLflow's descriptions."""
    info = report.info
    return f"[The study's report](#/experiments/{info.experiment_id}/runs/{info.run_id}/artifacts/{PAGE})"


def _opening(text: Path) -> str:
    """What stands above a report's tables: the question, how many runs there are, the finding."""
    return text.read_text().partition("\n## ")[0].strip() if text.is_file() else ""


def _lead_from_trials(client: MlflowClient, experiment_id: str, root_id: str, way: str) -> None:
    query = f"tags.`{KIND_TAG}` = '{TRIAL}' and tags.`{ROOT_TAG}` = '{root_id}'"
    for one in client.search_runs([experiment_id], query, max_results=10_000):
        if way not in (told := one.data.tags.get(NOTE_TAG, "")):
            for tag in with_own_note({NOTE_TAG: f"{told}\n\n{way}"}, one.data.tags).items():
                client.set_tag(one.info.run_id, *tag)
