"""What MLflow holds of a study, against the run folders that it mirrors."""

from collections import Counter

from sia.run.folder import RunFolder
from sia.run.metrics import read_rows
from sia.run.selection import selection_value
from sia.trackers.mlflow.mirror import MlflowMirror
from sia.trackers.mlflow.store import connect

STUDY = "size"


def mirrored(uri, runs) -> MlflowMirror:
    mirror = MlflowMirror(STUDY, uri)
    mirror.sync(runs)
    assert mirror.trouble is None and not mirror.left_out
    return mirror


def mlflow_runs(uri):
    client = connect(uri)
    experiment_id = client.get_experiment_by_name(STUDY).experiment_id
    return client, client.search_runs([experiment_id], order_by=["attributes.start_time"])


def trial_of(uri, run: RunFolder):
    found = [one for one in mlflow_runs(uri)[1] if one.info.run_name == run.name]
    assert len(found) == 1
    return found[0]


def stages_of(uri, trial):
    found = [one for one in mlflow_runs(uri)[1] if one.data.tags.get("mlflow.parentRunId") == trial.info.run_id]
    return {int(one.data.tags["sia.stage"]): one for one in found}


def history(uri, mlflow_run):
    """Every stored point of the run: ((key, step), value, timestamp)."""
    client = connect(uri)
    keys = client.get_run(mlflow_run.info.run_id).data.metrics
    return [
        ((point.key, point.step), point.value, point.timestamp)
        for key in keys
        for point in client.get_metric_history(mlflow_run.info.run_id, key)
    ]


def expected(rows):
    points = {
        ((key, row["epoch"]), value, int(row["time"] * 1000))
        for row in rows
        for key, value in row.items()
        if "/" in key
    }
    epochs = [row for row in rows if "stage_epoch" in row]
    for number, row in enumerate(epochs):
        if all(selection_value(row) > selection_value(earlier) for earlier in epochs[:number]):
            points.add((("best/R_at_10", row["epoch"]), selection_value(row), int(row["time"] * 1000)))
    return points


def assert_in_step(uri, run):
    """MLflow holds every (key, step) of the file once, on the trial and on the stage, and nothing else."""
    rows, trial = read_rows(run.metrics), trial_of(uri, run)
    for target, own in [
        (trial, rows),
        *((stage, [row for row in rows if row["stage"] == n]) for n, stage in stages_of(uri, trial).items()),
    ]:
        points = history(uri, target)
        assert set(points) == expected(own)
        assert set(Counter(place for place, _, _ in points).values()) <= {1}
