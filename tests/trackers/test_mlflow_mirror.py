"""A real MLflow in a sqlite file; a study is written as the jobs write it."""

import json
import socket
import sqlite3
from collections import Counter

import pytest
from mirrored import STUDY, assert_in_step, history, mirrored, mlflow_runs, stages_of, trial_of
from written_runs import BEGAN, begin_run, epoch_row, experiment, finish_run, measures

from sia.atomic import read_json, write_json
from sia.run.metrics import append_row, read_rows, write_rows
from sia.trackers.mlflow.mirror import MlflowMirror, note_file
from sia.trackers.mlflow.values import BEST
from sia.trackers.mlflow.view import VIEW, how_to_open


def test_a_study_is_an_experiment_of_trials_with_nested_stages(uri, two_runs):
    mirrored(uri, two_runs)
    _, found = mlflow_runs(uri)
    assert len(found) == 6
    for run in two_runs:
        trial = trial_of(uri, run)
        assert {stage.info.run_name for stage in stages_of(uri, trial).values()} == {"stage 1", "stage 2 from epoch 2"}
        assert_in_step(uri, run)


def test_recalls_of_every_split_and_direction_are_there(uri, two_runs):
    mirrored(uri, two_runs)
    keys = set(trial_of(uri, two_runs[0]).data.metrics)
    assert {f"{split}/{key}" for split in ("validation", "test") for key in measures(1.0)} <= keys


def test_parameters_are_resolved_values_and_sizes(uri, two_runs):
    mirrored(uri, two_runs)
    trial = trial_of(uri, two_runs[1])
    shown = ("pair", "model.gru_layers", "model.latent_size", "training.seed", "loss.margin", "stages.2.lr_scale")
    assert [trial.data.params[key] for key in shown] == ["DG2A64", "2", "64", "1", "0.2", "0.5"]
    assert int(trial.data.params["speech_parameters"]) > 0 and int(trial.data.params["image_parameters"]) > 0
    assert trial.data.tags["mlflow.source.git.commit"] == "a" * 40
    stage = stages_of(uri, trial)[2]
    assert stage.data.params["stage.lr_scale"] == "0.5"
    ended = {key for key in stage.data.tags if key.startswith("done.")}
    assert ended == {"done.best_epoch", "done.best_value", "done.seconds", "done.epochs"}, "its rows are metrics"


def test_syncing_again_adds_nothing(uri, two_runs):
    mirrored(uri, two_runs).sync(two_runs)
    mirrored(uri, two_runs)
    assert len(mlflow_runs(uri)[1]) == 6
    assert_in_step(uri, two_runs[0])


def test_a_lost_cursor_makes_no_doubles(uri, two_runs):
    mirrored(uri, two_runs)
    before = read_json(note_file(two_runs[0]))
    note_file(two_runs[0]).unlink()
    mirrored(uri, two_runs)
    assert read_json(note_file(two_runs[0])) == before
    note_file(two_runs[0]).unlink()
    append_row(two_runs[0].metrics, epoch_row(6, 2, 3, 0.4))
    mirrored(uri, two_runs)
    assert read_json(note_file(two_runs[0])) == {**before, "rows": before["rows"] + 1}
    assert_in_step(uri, two_runs[0])


def test_the_cursor_of_another_database_is_ignored(uri, two_runs, tmp_path, migrated_database):
    mirrored(uri, two_runs)
    (tmp_path / "other.db").write_bytes(migrated_database)
    other = f"sqlite:///{tmp_path / 'other.db'}"
    mirrored(other, two_runs)
    assert_in_step(other, two_runs[0])
    assert read_json(note_file(two_runs[0]))["tracking_uri"] == other


def test_rows_arrive_while_the_run_goes_on(uri, tmp_path):
    run = begin_run(tmp_path, STUDY, experiment())
    mirror = mirrored(uri, [run])
    for epoch in (1, 2):
        append_row(run.metrics, epoch_row(epoch, 1, epoch, 0.1))
        with open(run.metrics, "a") as stream:
            stream.write('{"stage": 1, "ep')
        mirror.sync([run])
        assert_in_step(uri, run)
    assert trial_of(uri, run).info.status == "RUNNING"


def test_a_resume_that_cuts_rows_leaves_no_stale_ones(uri, tmp_path):
    run = begin_run(tmp_path, STUDY, experiment())
    for epoch in (1, 2, 3):
        append_row(run.metrics, epoch_row(epoch, 1, epoch, 0.1 * epoch))
    mirror = mirrored(uri, [run])
    write_rows(run.metrics, read_rows(run.metrics)[:2])
    # As many rows as before: their number alone would not tell.
    append_row(run.metrics, epoch_row(3, 1, 3, 0.35, time=BEGAN + 999.0))
    mirror.sync([run])
    assert_in_step(uri, run)
    write_rows(run.metrics, read_rows(run.metrics)[:1])
    mirror.sync([run])
    assert_in_step(uri, run)


def test_a_resume_on_another_commit_changes_tags_not_parameters(uri, tmp_path):
    run = begin_run(tmp_path, STUDY, experiment())
    mirror = mirrored(uri, [run])
    append_row(run.provenance, {"stage": 1, "job_id": "18", "git_commit": "b" * 40, "git_dirty": True})
    mirror.sync([run])
    assert mirror.trouble is None
    tags = trial_of(uri, run).data.tags
    assert tags["provenance.job_id"] == "18" and tags["mlflow.source.git.commit"] == "b" * 40


def test_statuses_follow_the_markers(uri, tmp_path):
    configs = [experiment(**{"training.seed": seed}) for seed in range(4)]
    runs = [begin_run(tmp_path, STUDY, config) for config in configs[:3]] + [finish_run(tmp_path, STUDY, configs[3])]
    write_json(runs[1].stage(1).failed, {"error": "out of memory"})
    write_json(runs[2].stopped, {"by": "asha"})
    mirror = mirrored(uri, runs)
    statuses = [trial_of(uri, run).info.status for run in runs]
    assert statuses == ["RUNNING", "FAILED", "KILLED", "FINISHED"]
    assert stages_of(uri, trial_of(uri, runs[1]))[1].info.status == "FAILED"
    assert stages_of(uri, trial_of(uri, runs[3]))[1].info.status == "FINISHED"
    runs[1].stage(1).failed.unlink()
    mirror.sync(runs)
    assert trial_of(uri, runs[1]).info.status == "RUNNING"


def test_values_that_are_no_numbers_do_not_stop_the_rest(uri, tmp_path):
    run = begin_run(tmp_path, STUDY, experiment())
    broken = {"train/loss": float("nan"), "train/gradient": float("inf"), "train/note": None}
    append_row(run.metrics, {**epoch_row(1, 1, 1, 0.1), **broken})
    mirror = mirrored(uri, [run])
    note_file(run).unlink()
    MlflowMirror(STUDY, uri).sync([run])
    assert mirror.trouble is None
    counts = Counter(place for place, _, _ in history(uri, trial_of(uri, run)))
    assert counts[("train/loss", 1)] == counts[("train/gradient", 1)] == 1
    assert "train/note" not in trial_of(uri, run).data.metrics


def test_one_broken_file_does_not_hold_up_the_other_runs(uri, two_runs):
    text = two_runs[0].metrics.read_text()
    two_runs[0].metrics.write_text("nonsense\n" + text)
    mirror = MlflowMirror(STUDY, uri)
    kept = two_runs[0].config.read_text()
    two_runs[0].config.write_text("nonsense")
    mirror.sync(two_runs)
    assert "config.yaml" in mirror.left_out[two_runs[0].name] and mirror.trouble is None
    assert_in_step(uri, two_runs[1])
    two_runs[0].config.write_text(kept)
    mirror.sync(two_runs)
    assert mirror.trouble is None and not mirror.left_out, "rows of stages that are done are on record"
    two_runs[0].metrics.write_text(text)
    assert_in_step(uri, two_runs[0])


def test_a_server_nobody_runs_is_trouble_not_an_error(two_runs, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        mirror = MlflowMirror(STUDY, f"http://127.0.0.1:{unused.getsockname()[1]}")
        mirror.sync(two_runs)
    assert "MLflow at http://127.0.0.1" in mirror.trouble
    assert not note_file(two_runs[0]).exists()


@pytest.mark.slow
def test_a_locked_database_is_caught_up_later(uri, two_runs, tmp_path):
    mirror = mirrored(uri, two_runs[:1])
    holder = sqlite3.connect(tmp_path / "mlflow.db", isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    append_row(two_runs[0].metrics, epoch_row(6, 2, 3, 0.4))
    mirror.sync(two_runs)
    assert "locked" in mirror.trouble
    holder.execute("ROLLBACK")
    mirror.sync(two_runs)
    assert mirror.trouble is None
    for run in two_runs:
        assert_in_step(uri, run)


def test_a_study_opens_as_a_table_of_its_trials(uri, two_runs):
    """The view's filter and sort are asked of the real store; which pages read the tag was looked at in a browser."""
    mirrored(uri, two_runs)
    client, _ = mlflow_runs(uri)
    experiment = client.get_experiment_by_name(STUDY)
    view = json.loads(experiment.tags[f"mlflow.sharedViewState.{VIEW}"])
    found = client.search_runs(
        [experiment.experiment_id], view["searchFilter"], order_by=[f"{view['orderByKey']} DESC"]
    )
    assert {one.info.run_name for one in found} == {run.name for run in two_runs}
    best = [one.data.metrics[BEST] for one in found]
    assert best == sorted(best, reverse=True)
    known = {
        *(f"metrics.`{one}`" for one in found[0].data.metrics),
        *(f"params.`{one}`" for one in found[0].data.params),
    }
    assert set(view["selectedColumns"]) - known == {"attributes.`Duration`"}
    assert found[0].data.tags["mlflow.user"] == two_runs[0].config.owner()
    assert read_json(note_file(two_runs[0]))["experiment_id"] == experiment.experiment_id


def test_a_view_and_a_note_that_a_person_wrote_are_left_alone(uri, two_runs):
    mirrored(uri, two_runs)
    client, _ = mlflow_runs(uri)
    experiment = client.get_experiment_by_name(STUDY).experiment_id
    client.set_experiment_tag(experiment, "mlflow.note.content", "mine")
    mirrored(uri, two_runs)
    assert client.get_experiment(experiment).tags["mlflow.note.content"] == "mine"


def test_how_a_study_is_opened():
    assert how_to_open("https://server/", "7") == ["https://server/#/experiments/7/runs?viewStateShareKey=sia"]
    serve, then = how_to_open("sqlite:////x/mlflow.db", "7")
    assert serve.endswith("mlflow ui --workers 1 --backend-store-uri sqlite:////x/mlflow.db")
    assert then == "then http://127.0.0.1:5000/#/experiments/7/runs?viewStateShareKey=sia"
