"""A real MLflow in a sqlite file; a study is written as the jobs write it."""

import json
from collections import Counter

import pytest
from desk import REPOSITORY
from mirrored import STUDY, assert_in_step, history, mirrored, mlflow_runs, stages_of, trial_of
from written_runs import BEGAN, begin_run, end_stage, epoch_row, experiment, finish_run, measures, write_finished

from sia.atomic import read_json, write_json
from sia.run.row_files import append_row, read_rows, write_rows
from sia.sweep.grid import load_grid
from sia.trackers.mlflow.mirror import MlflowMirror, note_file
from sia.trackers.mlflow.points import BEST, RATE, SELECTION, STAGE
from sia.trackers.mlflow.store import connect
from sia.trackers.mlflow.view import VIEW
from sia.trackers.tracker import Ending


def test_a_study_is_an_experiment_of_trials_with_nested_stages(uri, two_runs):
    mirrored(uri, two_runs).sync(two_runs)
    mirrored(uri, two_runs)
    assert len(mlflow_runs(uri)[1]) == 6, "syncing again adds nothing"
    for run in two_runs:
        trial = trial_of(uri, run)
        assert {stage.info.run_name for stage in stages_of(uri, trial).values()} == {"stage 1", "stage 2 from epoch 2"}
        assert_in_step(uri, run)
    shown = ("pair", "model.gru_layers", "model.latent_size", "training.seed", "loss.margin", "stages.2.lr_scale")
    assert [trial.data.params[key] for key in shown] == ["DG2A64", "2", "64", "1", "0.2", "0.5"]
    assert int(trial.data.params["speech_parameters"]) > 0 and int(trial.data.params["image_parameters"]) > 0
    assert trial.data.tags["mlflow.source.git.commit"] == "a" * 40
    stage = stages_of(uri, trial)[2]
    assert stage.data.params["stage.lr_scale"] == "0.5"
    ended = {key for key in stage.data.tags if key.startswith("done.")}
    assert ended == {"done.best_epoch", "done.best_value", "done.seconds", "done.epochs"}, "its rows are metrics"


def test_what_has_ended_tells_its_test_in_percent_its_time_and_where_it_lies(uri, two_runs):
    mirrored(uri, two_runs)
    run, trial = two_runs[0], trial_of(uri, two_runs[0])
    assert [trial.data.metrics[f"test {one}"] for one in ("R10 s2i", "R10 i2s", "R1 s2i")] == [50, 45, 5]
    assert trial.data.metrics["hours trained"] == round(5 * 50 / 3600, 4)
    assert (trial.info.start_time, trial.info.end_time) == (int(BEGAN * 1000), int((BEGAN + 400) * 1000))
    assert stages_of(uri, trial)[2].info.start_time == int((BEGAN + 4 * 60 - 50) * 1000)
    assert trial.data.tags["state"] == "finished" and trial.data.tags["stages"] == "3 calwr, then 2 calr x 0.5"
    told = trial.data.tags["mlflow.note.content"]
    for part in ("Best epoch: 4 of 5, in stage 2", "speech to image **50.0 %**", str(run.path), "resume.py"):
        assert part in told
    (corpus,) = trial.inputs.dataset_inputs
    assert (corpus.dataset.name, corpus.dataset.digest) == ("scenes", "0123abcd")
    assert [one.path for one in connect(uri).list_artifacts(trial.info.run_id)] == ["config.yaml"]


def test_a_description_that_a_person_wrote_stays(uri, tmp_path):
    run = begin_run(tmp_path, STUDY, experiment())
    mirror = mirrored(uri, [run])
    for epoch, words in ((1, None), (2, "look at this one")):
        append_row(run.metrics, epoch_row(epoch, 1, epoch, 0.1))
        if words:
            connect(uri).set_tag(trial_of(uri, run).info.run_id, "mlflow.note.content", words)
        mirror.sync([run])
        assert (words or "Best epoch: 1 of 1") in trial_of(uri, run).data.tags["mlflow.note.content"]


def test_a_run_is_not_there_before_it_trains_and_starts_when_it_does(uri, tmp_path):
    run = begin_run(tmp_path, STUDY, experiment())
    job = read_rows(run.provenance)
    run.provenance.unlink()
    mirror = mirrored(uri, [run])
    assert not mlflow_runs(uri)[1] and not note_file(run).exists()
    write_json(run.stage(1).failed, {"error": "no node", "time": BEGAN + 10})
    mirror.sync([run])
    assert trial_of(uri, run).info.start_time == int((BEGAN + 10) * 1000)
    run.stage(1).failed.unlink()
    write_rows(run.provenance, [{**job[0], "time": BEGAN + 600}])
    mirror.sync([run])
    assert trial_of(uri, run).info.start_time == int((BEGAN + 600) * 1000)


def test_a_hundred_epochs_are_a_thousand_points(uri, tmp_path):
    """With what a row holds: R@10, two other recalls and two ranks of either direction and of two splits."""
    run = begin_run(tmp_path, STUDY, experiment(**{"stages.1.epochs": 100}))
    trained = {f"train/{key}": number for key, number in measures(0.5).items()}
    write_rows(run.metrics, [{**epoch_row(epoch, 1, epoch, epoch / 200), **trained} for epoch in range(1, 101)])
    end_stage(run, 1)
    mirrored(uri, [run])
    assert sum(len(history(uri, one)) for one in mlflow_runs(uri)[1]) < 1000


def test_a_lost_note_makes_no_doubles(uri, two_runs):
    mirrored(uri, two_runs)
    before = read_json(note_file(two_runs[0]))
    note_file(two_runs[0]).unlink()
    append_row(two_runs[0].metrics, epoch_row(6, 2, 3, 0.4))
    mirrored(uri, two_runs)
    assert read_json(note_file(two_runs[0])) == {**before, "rows": before["rows"] + 1}
    assert_in_step(uri, two_runs[0])


def test_the_note_of_another_database_is_ignored(uri, two_runs, tmp_path, migrated_database):
    mirrored(uri, two_runs)
    (tmp_path / "other.db").write_bytes(migrated_database.read_bytes())
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


def test_values_that_are_no_numbers_do_not_stop_the_rest(uri, tmp_path):
    run = begin_run(tmp_path, STUDY, experiment())
    broken = {"train/loss": float("nan"), "train/gradient": float("inf"), "train/note": None, "train/huge": 10**400}
    append_row(run.metrics, {**epoch_row(1, 1, 1, 0.1), **broken})
    mirrored(uri, [run])
    mirrored(uri, [run])
    counts = Counter(place for place, _, _ in history(uri, trial_of(uri, run)))
    assert counts[("train/loss", 1)] == counts[("train/gradient", 1)] == 1
    assert not {"train/note", "train/huge"} & trial_of(uri, run).data.metrics.keys()


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


def test_markers_say_how_a_run_ended_as_status_tells_it(uri, tmp_path):
    """More than that nobody trains it; of one that failed and was cancelled then, the latter; a failure of an earlier
    stage is none.
    """
    configs = [experiment(**{"training.seed": seed}) for seed in range(5)]
    begun = [begin_run(tmp_path, STUDY, config) for config in configs[:4]]
    failed, stopped, both, went_on = begun
    for run in (failed, both, went_on):
        write_json(run.stage(1).failed, {"error": "out of memory"})
    write_json(stopped.stopped, {"by": "asha"})
    write_json(both.stopped, {"by": "cancel"})
    end_stage(went_on, 1)
    finished = finish_run(tmp_path, STUDY, configs[4])
    mirror = MlflowMirror(STUDY, uri)
    mirror.sync([*begun, finished], {run.path: Ending("FAILED", why="lost") for run in (*begun[:3], finished)})
    assert [trial_of(uri, run).info.status for run in (*begun, finished)] == [
        *("FAILED", "KILLED", "KILLED", "RUNNING", "FINISHED")
    ]
    assert trial_of(uri, stopped).data.tags["sia.ended"] == "stopped by asha"
    assert stages_of(uri, trial_of(uri, both))[1].info.status == "KILLED"
    assert stages_of(uri, trial_of(uri, failed))[1].info.status == "FAILED"
    failed.stage(1).failed.unlink()
    mirror.sync([failed])
    assert trial_of(uri, failed).info.status == "RUNNING"


def test_an_experiment_that_was_deleted_is_restored(uri, two_runs):
    mirrored(uri, two_runs)
    client, found = mlflow_runs(uri)
    client.delete_experiment(found[0].info.experiment_id)
    mirrored(uri, two_runs)
    assert len(mlflow_runs(uri)[1]) == 6
    assert_in_step(uri, two_runs[0])


@pytest.mark.parametrize("split", ["validation", "test"])
def test_a_study_opens_as_a_table_of_its_trials_the_best_first(uri, tmp_path, split):
    """The view's filter and sort are asked of the real store; which pages read the tag was looked at in a browser.

    What a person has written instead is left alone.
    """
    seeds = [experiment(**{"training.seed": seed, "training.select_on": split}) for seed in (0, 1)]
    runs = [finish_run(tmp_path, STUDY, seed, peak) for seed, peak in zip(seeds, (0.2, 0.8), strict=True)]
    mirrored(uri, runs)
    client, _ = mlflow_runs(uri)
    study = client.get_experiment_by_name(STUDY)
    view = json.loads(study.tags[f"mlflow.sharedViewState.{VIEW}"])
    assert view["orderByKey"] == f"metrics.`{BEST}`" and not view["orderByAsc"]
    found = client.search_runs([study.experiment_id], view["searchFilter"], order_by=[f"{view['orderByKey']} DESC"])
    assert [one.info.run_name for one in found] == [f"1 {runs[1].name}", f"0 {runs[0].name}"]
    columns = view["selectedColumns"]
    assert columns[:3] == ["params.`training.seed`", "metrics.`test R10 s2i`", "metrics.`test R10 i2s`"]
    data = found[0].data
    known = {f"{kind}.`{one}`" for kind in ("metrics", "params", "tags") for one in getattr(data, kind)}
    assert set(columns) - known == {"attributes.`Duration`", "attributes.`User`", "tags.`sia.ended`"}
    charted = {chart["metricKey"] for chart in view["compareRunCharts"] if "metricKey" in chart}
    assert charted <= found[0].data.metrics.keys() and "selection/R_at_10" in charted
    places = Counter(place for place, _, _ in history(uri, found[0]))
    assert set(places.values()) == {1}, "of a checkpoint that is tested again one value stands"
    assert found[0].data.tags["mlflow.user"] == runs[0].config.owner()
    assert read_json(note_file(runs[0]))["experiment_id"] == study.experiment_id
    client.set_experiment_tag(study.experiment_id, "mlflow.note.content", "mine")
    mirrored(uri, runs)
    assert client.get_experiment(study.experiment_id).tags["mlflow.note.content"] == "mine"


def finish_any(root, config):
    """A finished run of any chain of stages."""
    run, epoch = begin_run(root, STUDY, config), 0
    for number, stage in enumerate(config.stages, start=1):
        for own in range(1, stage.epochs + 1):
            epoch += 1
            append_row(run.metrics, epoch_row(epoch, number, own, 0.5 + epoch / 100))
    append_row(run.metrics, write_finished(run, measures(0.5)).row)
    return run


LAYERS, LATENT = "params.`model.gru_layers`", "params.`model.latent_size`"
LOSSES = ["params.`loss.name`", "params.`loss.margin`"]


@pytest.mark.parametrize(
    ("grid", "columns", "charts", "name"),
    [
        ("size", [LAYERS, LATENT], ["size", "varied"], ""),
        ("restarts", ["tags.`stages`"], [], "6 calr + 2 calr x 0.5"),
        ("losses", LOSSES, ["varied"], "hinge_hardest, 0.2"),
    ],
)
def test_a_studys_columns_are_what_its_grid_varies_its_charts_open_on_the_restarts(
    uri, tmp_path, monkeypatch, grid, columns, charts, name
):
    """Of the grids of `sweeps/`; a chain of stages is one column."""
    monkeypatch.setattr("os.fsync", lambda descriptor: None)
    points = load_grid(REPOSITORY / "sweeps" / f"{grid}.yaml", miniature=True).points
    runs = [finish_any(tmp_path, point.experiment) for point in points]
    mirrored(uri, runs)
    client, _ = mlflow_runs(uri)
    study = client.get_experiment_by_name(STUDY)
    view = json.loads(study.tags[f"mlflow.sharedViewState.{VIEW}"])
    tested = ["metrics.`test R10 s2i`", "metrics.`test R10 i2s`", "attributes.`Duration`", "tags.`state`"]
    shown = view["selectedColumns"]
    assert sorted(shown[: len(columns)]) == sorted(columns)
    assert shown[len(columns) : len(columns) + 5] == [*tested, "attributes.`User`"]
    trials = client.search_runs([study.experiment_id], view["searchFilter"])
    known = {f"{kind}.`{key}`" for one in trials for kind in ("params", "tags") for key in getattr(one.data, kind)}
    assert set(columns) <= known
    drawn = [chart for chart in view["compareRunCharts"] if chart["metricSectionId"] == "curves"]
    assert [chart["metricKey"] for chart in drawn][:3] == [SELECTION, RATE, STAGE]
    assert all(chart["metricKey"] in one.data.metrics for chart in drawn for one in trials)
    uuids = [chart["uuid"] for chart in view["compareRunCharts"] if chart["type"] != "LINE"]
    assert uuids == [f"tested-test R10 {way}" for way in ("s2i", "i2s")] + [f"tested-{one}" for one in charts]
    names = [one.info.run_name for one in trials]
    assert len({*names}) == len(points) and any(one.startswith(f"{name} DG".lstrip()) for one in names)
    longest = max((str(value) for one in trials for value in [one.data.tags["stages"]]), key=len)
    assert len(longest) < 60, "a column that shows it whole"


def test_how_a_study_is_opened(uri, two_runs):
    mirror = mirrored(uri, two_runs)
    table = "http://127.0.0.1:5000/#/experiments/1/runs?viewStateShareKey=sia"
    assert mirror.how_to_open(two_runs) == ["make ui, then", table, f"{table}&compareRunsMode=CHART"]
    trial = trial_of(uri, two_runs[0]).info.run_id
    assert mirror.page_of(two_runs[0]) == f"http://127.0.0.1:5000/#/experiments/1/runs/{trial}"
    assert MlflowMirror(STUDY, "https://server").how_to_open(two_runs) == []
