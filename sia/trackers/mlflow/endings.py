"""How MLflow's runs end: as their folders say, or because their folder is gone."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from sia.run.folder import RunFolder
from sia.trackers.mlflow.points import SELECTION
from sia.trackers.mlflow.values import ENDED_TAG, ROOT_TAG, RUN_TAG, STATE_TAG
from sia.trackers.run_id import run_id
from sia.trackers.tracker import Ending

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run


def end(client: MlflowClient, target: Run, ending: Ending) -> None:
    """Set the run's status, its end and why; what MLflow holds already is left as it is."""
    run_id, known = target.info.run_id, target.data.tags.get(ENDED_TAG)
    if ending.why and known != ending.why:
        client.set_tag(run_id, ENDED_TAG, ending.why)
    elif known is not None and not ending.why:
        client.delete_tag(run_id, ENDED_TAG)
    if ending.status == "RUNNING" != target.info.status:
        client.update_run(run_id, status="RUNNING")
    elif ending.status != "RUNNING" and ending[:2] != (target.info.status, target.info.end_time):
        client.set_terminated(run_id, status=ending.status, end_time=ending.ended_ms)


def end_those_without_folder(client: MlflowClient, study: str, root: Path) -> int:
    """Close what is still open of the study though its folder below `root` is gone, at its last row; how many trials.

    Known by the root's own id: where others have a root of the same path, theirs are theirs.
    """
    if (experiment := client.get_experiment_by_name(study)) is None or not root.is_dir():
        return 0
    query = f"tags.`{ROOT_TAG}` = '{run_id(RunFolder(root))}' and attributes.status = 'RUNNING'"
    gone = [one for one in client.search_runs([experiment.experiment_id], query) if not _folder_of(root, one).exists()]
    for one in gone:
        points = client.get_metric_history(one.info.run_id, SELECTION)
        last_ms = max((point.timestamp for point in points), default=one.info.start_time)
        end(client, one, Ending("KILLED", last_ms, f"its folder is gone: {_folder_of(root, one)}"))
        client.set_tag(one.info.run_id, STATE_TAG, "folder gone")
    return len({one.data.tags[RUN_TAG] for one in gone})


def _folder_of(root: Path, one: Run) -> Path:
    return root / one.data.tags[RUN_TAG]
