"""What MLflow holds of a study, against the run folders that it mirrors."""

from collections import Counter

from sia.run.folder import RunFolder
from sia.run.row_files import read_rows
from sia.run.selection import selection_value
from sia.trackers.mlflow.mirror import MlflowMirror
from sia.trackers.mlflow.store import connect

STUDY = "size"
WAYS = {"speech_to_image": "s2i", "image_to_speech": "i2s"}


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
    found = [one for one in mlflow_runs(uri)[1] if one.data.tags["sia.run"] == f"{STUDY}/{run.name}"]
    found = [one for one in found if "sia.stage" not in one.data.tags]
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
    return "/" in key and not key.startswith("step/")


def curves_of(row):
    """What the trial's curves have of an epoch."""
    named = (key.split("/") for key in row if key.endswith("R_at_10"))
    recalls = {f"{split}/R10 {WAYS[way]}": f"{split}/{way}/R_at_10" for split, way, _ in named}
    others = {"train/loss": row["train/loss"], "selection/learning_rate": row["train/learning_rate"]}
    return {**{name: percent(row[key]) for name, key in recalls.items()}, **others, "selection/stage": row["stage"]}


def percent(share: float) -> float:
    return round(100 * share, 2)


def expected(rows, is_stage=False):
    """The points of the curves: a trial's, or a stage's one, of the R@10 that chooses."""
    points = set()
    for row in (row for row in rows if "stage_epoch" in row):
        values = {"selection/R_at_10": percent(selection_value(row)), **({} if is_stage else curves_of(row))}
        points |= {((key, row["epoch"]), value, int(row["time"] * 1000)) for key, value in values.items()}
    return points


def assert_in_step(uri, run, trial=None):
    """MLflow holds each point of the curves once, on the trial and on its stages, and the best of each."""
    rows, trial = read_rows(run.metrics), trial or trial_of(uri, run)
    stages = [(stage, [row for row in rows if row["stage"] == n]) for n, stage in stages_of(uri, trial).items()]
    for target, own in [(trial, rows), *stages]:
        found = [point for point in history(uri, target) if is_curve(point[0][0])]
        assert Counter(found) == Counter(expected(own, target is not trial))
        best = [percent(selection_value(row)) for row in own if "stage_epoch" in row]
        assert target.data.metrics.get("best R10") == max(best, default=None)
