"""Run folders -> MLflow: an experiment a study, a run a trial, a nested run a stage.

One process mirrors a study. What MLflow holds of a run is written on the MLflow run itself (tag `sia.rows`), so that
neither a lost file nor a new database can make it disagree; mlflow.json tells others which MLflow runs those are.
Several people may have runs of one name on one store: a mirror changes only what carries its run's id (tag `sia.id`).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sia.atomic import read_json, write_json
from sia.checks import Finding
from sia.errors import UserError, one_line
from sia.run.folder import RunFolder, runs_root, study_of
from sia.run.records import TrainedOn
from sia.run.steps import steps_after
from sia.trackers.mlflow import check, endings, points, report, values
from sia.trackers.mlflow.note import NOTE_TAG, with_own_note
from sia.trackers.mlflow.store import (
    artifact_location,
    concerns_one_run,
    connect,
    network_mount_warning,
    sqlite_path,
    store_faults,
    tracking_uri,
    without_password,
)
from sia.trackers.mlflow.values import Part, Reading, read_run
from sia.trackers.mlflow.view import experiment_tags, name_of, run_url, settings_of, view_urls
from sia.trackers.run_id import run_id
from sia.trackers.tracker import Ending, Mirrored, StoreFault, Tracker

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Experiment, Run

# MLflow takes a thousand values a call.
METRICS_A_CALL, TEXTS_A_CALL = 800, 100
SOURCES_TAG = "sia.sources"


class MlflowMirror(Tracker):
    """Keeps the MLflow experiment of a study in step with its run folders."""

    name = "MLflow"

    def __init__(self, study: str = "", uri: str | None = None) -> None:
        super().__init__(study, uri)
        self.uri: str = uri or tracking_uri()
        self._store: tuple[MlflowClient, str] | None = None
        self._settings: dict[RunFolder, dict[str, Any]] = {}  # in which the runs differ
        self._reports: values.Texts = {}  # the way to each, by the id of its folder of studies

    def mirror(self, run: RunFolder, closing: Ending | None) -> Mirrored | None:
        if (reading := read_run(run, closing)) is None:
            return None
        reading.trial.tags[NOTE_TAG] += self._reports.get(reading.trial.tags[values.ROOT_TAG], "")
        name = name_of(run, self._settings.get(run, {}))
        reading = reading._replace(trial=reading.trial._replace(name=name))
        with self._faults():
            note = self._mirror(run, reading)
        write_json(note_file(run), note)
        return Mirrored(len(reading.rows), reading.trial.ending.status)

    def arrange(self, runs: list[RunFolder]) -> None:
        with self._faults():
            client, experiment_id = self._open()
            known = client.get_experiment(experiment_id).tags
            self._settings = settings_of(runs)
            for key, text in experiment_tags(list(self._settings.values())).items():
                if known.get(key) != text:
                    client.set_experiment_tag(experiment_id, key, text)
            if NOTE_TAG not in known:
                report.describe(client, experiment_id, study_of(self.study).question)
            kept = report.reports(client, experiment_id)
            self._reports = {one.data.tags[values.ROOT_TAG]: f"\n\n{report.link(one)}" for one in kept}

    def keep_report(self, folder: Path) -> None:
        root = RunFolder(runs_root())
        with self._faults():
            report.keep(*self._open(), run_id(root), study_of(self.study), folder)

    def end_gone(self) -> int:
        if (path := sqlite_path(self.uri)) is not None and not path.exists():
            return 0
        with self._faults():
            return endings.end_those_without_folder(connect(self.uri), self.study, runs_root())

    def how_to_open(self, runs: list[RunFolder]) -> list[str]:
        addresses = self.addresses(runs)
        return addresses if self.is_server or not addresses else ["make ui, then", *addresses]

    def addresses(self, runs: list[RunFolder], port: int = check.UI_PORT) -> list[str]:
        """Of the table and of the charts of these runs' study; none where nothing is held."""
        note = next((note for run in runs if (note := mirrored_at(run, self.uri)) is not None), None)
        return [] if note is None else view_urls(self._server(port), note["experiment_id"])

    def page_of(self, run: RunFolder) -> str | None:
        if (note := mirrored_at(run, self.uri)) is None:
            return None
        return run_url(self._server(check.UI_PORT), note["experiment_id"], note["trial_run_id"])

    @property
    def is_server(self) -> bool:
        return self.uri.startswith("http")

    def _server(self, port: int) -> str:
        return without_password(self.uri) if self.is_server else f"http://127.0.0.1:{port}"

    @contextmanager
    def _faults(self) -> Iterator[None]:
        """What the store raises, in one line: UserError of one run's values, StoreFault of all the others."""
        try:
            yield
        except store_faults() as fault:
            said = without_password(f"MLflow at {self.uri}: {one_line(str(fault))}")
            if concerns_one_run(fault):
                raise UserError(said) from None
            self._store = None
            raise StoreFault(said) from None

    def log_export(self, run: RunFolder, export: Path, columns: Sequence[str]) -> list[str]:
        from sia.trackers.mlflow.export import log_export

        model = log_export(self, self.uri, run, export, columns)
        # MLflow finds its server on the path alone, hence the activation.
        return [f"{model}: source .venv/bin/activate; mlflow models serve --model-uri {model} --env-manager local"]

    def warning(self) -> str | None:
        return network_mount_warning(self.uri)

    def environment(self) -> dict[str, str]:
        # The code of such a job lies in a snapshot, from which the store of this checkout would not be found.
        return {"MLFLOW_TRACKING_URI": self.uri}

    def findings(self) -> list[Finding]:
        return [check.place(self.uri), check.opens(self.uri)]

    def _mirror(self, run: RunFolder, reading: Reading) -> dict[str, Any]:
        """Bring it all in; what tells those who show or export the run where it is."""
        trial, stages, count = self._adopt(run, reading)
        rows = reading.rows
        trial = trial or self._create(reading.trial)
        for number, part in reading.stages.items():
            # A stage run that was lost or deleted is made anew, with all of its rows.
            mirrored = sum(row["stage"] == number for row in rows[:count]) if number in stages else 0
            part.tags[values.PARENT_TAG] = trial.info.run_id
            stages[number] = stages.get(number) or self._create(part)
            self._bring(stages[number], part, mirrored)
        steps, marks = self._steps(trial, run)
        marks |= self._bring_sources(trial, run)
        self._bring(trial, reading.trial, count, steps, {**marks, points.ROWS_TAG: points.rows_mark(rows)})
        stage_ids = {str(number): stage.info.run_id for number, stage in stages.items()}
        place = {"tracking_uri": without_password(self.uri), "experiment_id": trial.info.experiment_id}
        return {**place, "trial_run_id": trial.info.run_id, "stages": stage_ids, "rows": len(rows)}

    def _open(self) -> tuple[MlflowClient, str]:
        """The client and the study's experiment id."""
        if self._store is None:
            client = connect(self.uri)
            experiment: Any = client.get_experiment_by_name(self.study) or self._new_experiment(client)
            if experiment.lifecycle_stage == "deleted":
                # Its name stays taken: there can be no other.
                client.restore_experiment(experiment.experiment_id)
            self._store = client, experiment.experiment_id
        return self._store

    def _new_experiment(self, client: MlflowClient) -> Experiment | None:
        from mlflow.exceptions import MlflowException

        try:
            client.create_experiment(self.study, artifact_location=artifact_location(self.uri, self.study))
        except MlflowException:
            if client.get_experiment_by_name(self.study) is None:  # nor made by somebody else at the same moment
                raise
        return client.get_experiment_by_name(self.study)

    def _adopt(self, run: RunFolder, reading: Reading) -> tuple[Run | None, dict[int, Run], int]:
        """The MLflow runs of the trial and of its stages by number, and how many of the rows they hold.

        All others with the run's id are deleted (MLflow can restore them): doubles, orphans, and those with rows that
        a resume has cut from the file since, because MLflow can forget a run but not a row.
        """
        client, experiment_id = self._open()
        query = f"tags.`{values.ID_TAG}` = '{reading.id}'"
        found = list(client.search_runs([experiment_id], query, order_by=["attributes.start_time ASC"]))
        trial, count = _trial(found, reading)
        parent = trial.info.run_id if trial else None
        stages = {
            int(one.data.tags[values.STAGE_TAG]): one
            for one in found
            if trial and one.data.tags.get(values.PARENT_TAG) == parent
        }
        for stray in found:
            if stray is not trial and stray not in stages.values():
                client.delete_run(stray.info.run_id)
        return trial, stages, count

    def _create(self, part: Part) -> Run:
        client, experiment_id = self._open()
        tags = with_own_note(part.tags, {})
        return client.create_run(experiment_id, start_time=part.began_ms, tags=tags, run_name=part.name)

    def _bring(
        self, target: Run, part: Part, first: int, more: Sequence[points.Point] = (), marks: values.Texts | None = None
    ) -> None:
        """Bring parameters and metrics up to date, rows from index `first` on; tags and status last, since `marks` say
        what is in.
        """
        from mlflow.entities import Metric, Param, RunTag

        client, run_id = self._open()[0], target.info.run_id
        # A parameter of MLflow cannot change: the first value stands.
        params = [Param(*item) for item in part.parameters.items() if item[0] not in target.data.params]
        new = [*more, *(point for curves in part.curves[first:] for point in curves)]
        new += [point for point in part.newest if target.data.metrics.get(point.key) != point.value]
        tags = {**with_own_note(part.tags, target.data.tags), **(marks or {})}
        changed = [RunTag(*item) for item in tags.items() if target.data.tags.get(item[0]) != item[1]]
        metrics = [Metric(*point) for point in new]
        parts = [_chunks(metrics, METRICS_A_CALL), _chunks(params, TEXTS_A_CALL), _chunks(changed, TEXTS_A_CALL)]
        calls = max(map(len, parts))
        for some in zip(*([[]] * (calls - len(part)) + part for part in parts), strict=True):
            client.log_batch(run_id, *some)
        endings.end(client, target, part.ending)

    def _bring_sources(self, trial: Run, run: RunFolder) -> values.Texts:
        """Once: the corpus as MLflow's dataset, the configuration as an artifact; the tag that says so."""
        from mlflow.entities import Dataset, DatasetInput, InputTag

        corpus = TrainedOn.read(run.corpus)
        if corpus is None or SOURCES_TAG in trial.data.tags:
            return {}
        client, run_id = self._open()[0], trial.info.run_id
        told = {key: value for key, value in corpus.description.items() if key in values.CORPUS_KEYS}
        source = json.dumps({"uri": corpus.folder})
        dataset = Dataset(corpus.name, corpus.identity, "local", source, profile=json.dumps(told))
        client.log_inputs(run_id, [DatasetInput(dataset, [InputTag("mlflow.data.context", "training")])])
        client.log_artifact(run_id, str(run.config))
        return {SOURCES_TAG: "config.yaml"}

    def _steps(self, trial: Run, run: RunFolder) -> tuple[list[points.Point], values.Texts]:
        """A row of steps.jsonl a minute, after those that it holds, and the tag of the last one; a resume goes over
        steps again, to the bit.
        """
        step, time = trial.data.tags.get(values.STEPS_TAG, "0 0").split()
        rows = points.a_minute_apart(steps_after(run, int(step)), float(time))
        return points.step_points(rows), {values.STEPS_TAG: f"{rows[-1].step} {rows[-1].time}"} if rows else {}


def _trial(found: list[Run], reading: Reading) -> tuple[Run | None, int]:
    """The first trial that holds no row but these, and how many of them; without any, only one that began when the run
    did, because MLflow cannot change that time.
    """
    for one in found:
        count = None if values.STAGE_TAG in one.data.tags else points.mirrored_count(one.data.tags, reading.rows)
        if count or (count == 0 and one.info.start_time == reading.trial.began_ms):
            return one, count
    return None, 0


def _chunks(items: list[Any], size: int) -> list[list[Any]]:
    return [items[start : start + size] for start in range(0, len(items), size)]


def note_file(run: RunFolder) -> Path:
    """Which MLflow runs hold this run's rows, and how many of them."""
    return run.path / "mlflow.json"


def mirrored_at(run: RunFolder, uri: str) -> dict[str, Any] | None:
    """What mlflow.json says of the store at `uri`; None where it is of another store, absent or damaged."""
    try:
        found = read_json(note_file(run))
    except (UserError, OSError):  # the next sync writes it anew
        return None
    return found if found is not None and found["tracking_uri"] == without_password(uri) else None
