"""A study's report in MLflow: the artifacts of a run of their own, to which the experiment's description leads."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from sia.run.records import Study
from sia.trackers.mlflow.note import mark
from sia.trackers.mlflow.values import KIND_TAG, NOTE_TAG, ROOT_TAG, source_tags
from sia.trackers.mlflow.view import NOTE

if TYPE_CHECKING:
    from mlflow import MlflowClient

REPORT, FILES_TAG = "report", "sia.files"
PAGE = "report.html"


def keep(client: MlflowClient, experiment_id: str, root_id: str, study: Study, folder: Path) -> None:
    """Bring the report's files up to date, and the grid file; of each folder of studies, by its id, another report."""
    files = [path for path in (*sorted(folder.glob("*")), Path(study.grid)) if path.is_file()]
    held = mark(str([(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in files]))
    query = f"tags.`{KIND_TAG}` = '{REPORT}' and tags.`{ROOT_TAG}` = '{root_id}'"
    found = client.search_runs([experiment_id], query)
    if found and found[0].data.tags.get(FILES_TAG) == held:
        return
    tags = {KIND_TAG: REPORT, ROOT_TAG: root_id, NOTE_TAG: study.question, **source_tags(study)}
    run = found[0] if found else client.create_run(experiment_id, tags=tags, run_name=REPORT)
    for path in files:
        client.log_artifact(run.info.run_id, str(path))
    client.set_tag(run.info.run_id, FILES_TAG, held)
    client.set_terminated(run.info.run_id)
    if client.get_experiment(experiment_id).tags.get(NOTE_TAG) == NOTE:  # not what a person has written
        page = f"#/experiments/{experiment_id}/runs/{run.info.run_id}/artifacts/{PAGE}"
        client.set_experiment_tag(experiment_id, NOTE_TAG, f"[The report]({page}) of this study. {NOTE}")
