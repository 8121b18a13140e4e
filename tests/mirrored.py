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


def is_curve(key: str) -> bool:
    summed_up = ("_at_1", "_at_5", "_rank", "/seconds")
    return "/" in key and not key.startswith(("best/", "step/")) and not key.endswith(summed_up)


def expected(rows, is_stage=False):
    """The points of the curves: a trial's, or a stage's one, of the R@10 that chooses."""
    curves = {(key, row["epoch"], value, row["time"]) for row in rows for key, value in row.items() if is_curve(key)}
    epochs = [row for row in rows if "stage_epoch" in row]
    chosen = {("selection/R_at_10", row["epoch"], selection_value(row), row["time"]) for row in epochs}
    return {
        ((key, step), value, int(time * 1000)) for key, step, value, time in (set() if is_stage else curves) | chosen
    }


def assert_in_step(uri, run, trial=None):
    """MLflow holds each point of the curves once, on the trial and on its stages, and the best of each."""
    rows, trial = read_rows(run.metrics), trial or trial_of(uri, run)
    stages = [(stage, [row for row in rows if row["stage"] == n]) for n, stage in stages_of(uri, trial).items()]
    for target, own in [(trial, rows), *stages]:
        found = [point for point in history(uri, target) if is_curve(point[0][0])]
        assert Counter(found) == Counter(expected(own, target is not trial))
        best = [selection_value(row) for row in own if "stage_epoch" in row]
        assert target.data.metrics.get("best/R_at_10") == max(best, default=None)
