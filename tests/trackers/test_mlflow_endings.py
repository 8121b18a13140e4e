"""How MLflow shows a run that ended, its best, and what was deleted there."""

import sqlite3

from mirrored import STUDY, assert_in_step, mirrored, mlflow_runs, stages_of, trial_of
from written_runs import BEGAN, begin_run, end_stage, epoch_row, experiment, finish_run

from sia.atomic import write_json
from sia.run.metrics import append_row, read_rows
from sia.run.selection import selection_value
from sia.trackers.mlflow.mirror import MlflowMirror
from sia.trackers.tracker import Ending


def test_a_run_that_nobody_trains_is_closed_at_its_last_row_until_it_goes_on(uri, tmp_path):
    run = begin_run(tmp_path, STUDY, experiment())
    append_row(run.metrics, epoch_row(1, 1, 1, 0.1))
    mirror = mirrored(uri, [run])
    for _ in range(2):
        mirror.sync([run], {run.path: Ending("FAILED", why="lost")})
        trial = trial_of(uri, run)
        for one in (trial, *stages_of(uri, trial).values()):
            assert (one.info.status, one.info.end_time) == ("FAILED", int((BEGAN + 60) * 1000))
            assert one.data.tags["sia.ended"] == "lost"
    append_row(run.metrics, epoch_row(2, 1, 2, 0.2))
    for again in (mirror, MlflowMirror(STUDY, uri)):
        again.sync([run])
        trial = trial_of(uri, run)
        for one in (trial, *stages_of(uri, trial).values()):
            assert one.info.status == "RUNNING" and "sia.ended" not in one.data.tags
    mirror.sync([run], {run.path: Ending("KILLED", why="no driver")})
    assert trial_of(uri, run).info.end_time == int((BEGAN + 120) * 1000)


def test_a_marker_says_more_than_that_nobody_trains_the_run(uri, two_runs):
    write_json(two_runs[1].stopped, {"by": "asha"})
    two_runs[1].finished.unlink()
    mirror = MlflowMirror(STUDY, uri)
    mirror.sync(two_runs, {run.path: Ending("FAILED", why="lost") for run in two_runs})
    assert [trial_of(uri, run).info.status for run in two_runs] == ["FINISHED", "KILLED"]
    assert trial_of(uri, two_runs[1]).data.tags["sia.ended"] == "stopped by asha"


def test_a_run_ended_as_status_tells_it(uri, tmp_path):
    """One that failed and was cancelled then; one that went on after a failure of an earlier stage."""
    both, went_on = (begin_run(tmp_path, STUDY, experiment(**{"training.seed": seed})) for seed in (0, 1))
    for run in (both, went_on):
        write_json(run.stage(1).failed, {"error": "out of memory"})
    write_json(both.stopped, {"by": "cancel"})
    end_stage(went_on, 1)
    mirrored(uri, [both, went_on])
    assert [trial_of(uri, run).info.status for run in (both, went_on)] == ["KILLED", "RUNNING"]
    assert stages_of(uri, trial_of(uri, both))[1].info.status == "KILLED"


def test_the_best_is_a_metric_that_the_table_of_runs_sorts_by(uri, tmp_path):
    seeds = [
        experiment(**{"training.seed": seed, "training.select_on": ("validation", "test")[seed]}) for seed in (0, 1)
    ]
    runs = [finish_run(tmp_path, STUDY, seed, peak) for seed, peak in zip(seeds, (0.2, 0.8), strict=True)]
    mirrored(uri, runs)
    client, found = mlflow_runs(uri)
    ranked = client.search_runs([found[0].info.experiment_id], order_by=["metrics.`best/R_at_10` DESC"])
    names = [one.info.run_name for one in ranked if "sia.stage" not in one.data.tags]
    assert names == [runs[1].name, runs[0].name]
    for run in runs:
        assert trial_of(uri, run).data.metrics["best/R_at_10"] == read_best(run)


def read_best(run):
    return max(selection_value(row) for row in read_rows(run.metrics) if "stage_epoch" in row)


def test_a_database_without_the_best_is_given_it(uri, two_runs, tmp_path):
    mirrored(uri, two_runs)
    with sqlite3.connect(tmp_path / "mlflow.db") as database:
        for table in ("metrics", "latest_metrics"):
            database.execute(f"DELETE FROM {table} WHERE key = 'best/R_at_10'")
    database.close()
    mirrored(uri, two_runs)
    assert_in_step(uri, two_runs[0])


def test_an_experiment_that_was_deleted_is_restored(uri, two_runs):
    mirrored(uri, two_runs)
    client, found = mlflow_runs(uri)
    client.delete_experiment(found[0].info.experiment_id)
    mirrored(uri, two_runs)
    assert len(mlflow_runs(uri)[1]) == 6
    assert_in_step(uri, two_runs[0])
