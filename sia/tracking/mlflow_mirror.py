"""Run folders -> MLflow: an experiment a study, a run a trial, a nested run a stage.

One process mirrors a study. What MLflow holds of a run is written on the MLflow run itself (tag `sia.rows`), so that
neither a lost file nor a new database can make it disagree; mlflow.json tells others which MLflow runs those are.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sia.atomic import write_json
from sia.run_folder import RunFolder
from sia.tracking import mlflow_values as values
from sia.tracking.metrics_log import Row, read_rows
from sia.tracking.mlflow_store import (
    artifact_location,
    concerns_one_run,
    connect,
    store_faults,
    tracking_uri,
    without_password,
)
from sia.tracking.mlflow_view import experiment_tags

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

METRICS_A_CALL = 1000
TEXTS_A_CALL = 100


class MlflowMirror:
    """Keeps the MLflow experiment of a study in step with its run folders; never raises for MLflow's sake.

    `trouble` is the last sync's fault in one line, or None. A later sync makes up for all that a faulty one missed.
    """

    def __init__(self, study: str, uri: str | None = None) -> None:
        self.study = study
        self.uri = uri or tracking_uri()
        self.trouble: str | None = None
        self._store: tuple[MlflowClient, str] | None = None
        self._mirrored: dict[Path, Any] = {}
        self._ended: Mapping[Path, values.Ending] = {}
        self._lock = threading.RLock()

    def sync(self, runs: list[RunFolder], ended: Mapping[Path, values.Ending] | None = None) -> None:
        """Bring MLflow up to date with the folders that changed since the last sync. Twice is the same as once.

        `ended` says of runs that nobody trains any more, by their folders, how to close those whose files do not tell.
        A run that is not in it is open again, whatever MLflow holds.
        """
        with self._lock:
            self.trouble, self._ended = None, ended or {}
            for run in runs:
                if not self._tried(run):
                    return

    def _tried(self, run: RunFolder) -> bool:
        """Mirror one run; False if the store is out of reach for every run."""
        try:
            if (state := self._state_of(run)) != self._mirrored.get(run.path):
                self._mirror(run)
                self._mirrored[run.path] = state
        except ValueError as fault:  # UserError, or JSON that somebody edited
            self.trouble = f"{run.name}: {fault}"
        except store_faults() as fault:
            said = without_password(f"MLflow at {self.uri}: {' '.join(str(fault).split())}")
            self.trouble = said[:350]
            if not concerns_one_run(fault):
                self._store = None
                return False
        return True

    def _state_of(self, run: RunFolder) -> Any:
        # Most runs of a large study are finished or waiting: a few stat calls tell that there is nothing to do.
        own = [run.config, run.corpus, run.metrics, run.finished, run.stopped, run.provenance]
        stages = sorted(run.path.glob("stages/*/*.json"))
        sizes = [(path, path.stat().st_mtime_ns, path.stat().st_size) for path in [*own, *stages] if path.is_file()]
        return sizes, self._ended.get(run.path)

    def _mirror(self, run: RunFolder) -> None:
        # First what a damaged folder refuses, so that none of it is in MLflow.
        rows, parameters = read_rows(run.metrics), values.trial_parameters(run)
        trial, stages, count = self._adopt(run, rows)
        trial = trial or self._create(run.name, run.config, values.trial_tags(run))
        for number in values.stage_numbers(run, rows):
            stages[number] = self._mirror_stage(run, number, rows, count, trial, stages.get(number))
        self._log(trial, parameters, values.trial_tags(run), _points(trial, rows, count))
        self._record(run, trial, stages, rows)
        files = [run.config, *run.path.glob("stages/*/plan.json"), *run.path.glob("stages/*/job.json")]
        self._end(trial, values.closed(values.trial_ending(run), self._ended.get(run.path), rows, files))

    def _mirror_stage(
        self, run: RunFolder, number: int, rows: list[Row], count: int, trial: Run, stage: Run | None
    ) -> Run:
        tags = values.stage_tags(run, number, trial.info.run_id)
        # A stage run that was lost or deleted is made anew, with all of its rows.
        mirrored = sum(row.get("stage") == number for row in rows[:count]) if stage else 0
        stage = stage or self._create(values.stage_name(run, number), run.stage(number).plan, tags)
        own = [row for row in rows if row.get("stage") == number]
        self._log(stage, values.stage_parameters(run, number), tags, _points(stage, own, mirrored))
        files = [run.stage(number).plan, run.stage(number).job]
        self._end(stage, values.closed(values.stage_ending(run, number), self._ended.get(run.path), own, files))
        return stage

    def _open(self) -> tuple[MlflowClient, str]:
        """The client and the study's experiment id."""
        if self._store is None:
            client = connect(self.uri)
            experiment = client.get_experiment_by_name(self.study)
            known = experiment.experiment_id if experiment else None
            if experiment and experiment.lifecycle_stage == "deleted":
                # Its name stays taken: there can be no other.
                client.restore_experiment(experiment.experiment_id)
            place = artifact_location(self.uri, self.study)
            experiment_id = known or client.create_experiment(self.study, artifact_location=place)
            for key, text in experiment_tags().items():
                # What a person has written there since is left alone.
                if experiment is None or key not in experiment.tags:
                    client.set_experiment_tag(experiment_id, key, text)
            self._store = client, experiment_id
        return self._store

    def _adopt(self, run: RunFolder, rows: list[Row]) -> tuple[Run | None, dict[int, Run], int]:
        """The MLflow runs of the trial and of its stages by number, and how many of the rows they hold.

        All others of the same name are deleted (MLflow can restore them): doubles, orphans, and those with rows that
        a resume has cut from the file since, because MLflow can forget a run but not a row.
        """
        found = self._find(run)
        trial = next((one for one in found if values.STAGE_TAG not in one.data.tags), None)
        count = values.mirrored_count(trial.data.tags, rows) if trial else None
        family = [] if trial is None or count is None else [trial, *_children(trial, found)]
        for stray in found:
            if stray not in family:
                self._open()[0].delete_run(stray.info.run_id)
        stages = {int(one.data.tags[values.STAGE_TAG]): one for one in family[1:]}
        return (trial if family else None), stages, count or 0

    def _find(self, run: RunFolder) -> list[Run]:
        client, experiment_id = self._open()
        query = f"tags.`{values.RUN_TAG}` = '{run.study}/{run.name}'"
        return list(client.search_runs([experiment_id], query, order_by=["attributes.start_time ASC"]))

    def _create(self, name: str, began: Path, tags: values.Texts) -> Run:
        client, experiment_id = self._open()
        return client.create_run(experiment_id, start_time=values.modified_ms(began), tags=tags, run_name=name)

    def _log(self, target: Run, parameters: values.Texts, tags: values.Texts, points: list[values.Point]) -> None:
        from mlflow.entities import Metric, Param, RunTag

        client, run_id = self._open()[0], target.info.run_id
        # A parameter of MLflow cannot change: the first value stands.
        new = {key: text for key, text in parameters.items() if key not in target.data.params}
        changed = {key: text for key, text in tags.items() if target.data.tags.get(key) != text}
        for some in _chunks(new.items(), TEXTS_A_CALL):
            client.log_batch(run_id, params=[Param(*item) for item in some])
        for some in _chunks(changed.items(), TEXTS_A_CALL):
            client.log_batch(run_id, tags=[RunTag(*item) for item in some])
        for some in _chunks(points, METRICS_A_CALL):
            client.log_batch(run_id, metrics=[Metric(*point) for point in some])

    def _record(self, run: RunFolder, trial: Run, stages: dict[int, Run], rows: list[Row]) -> None:
        """Say what has been mirrored, only after all of it is in."""
        self._open()[0].set_tag(trial.info.run_id, values.ROWS_TAG, values.rows_mark(rows))
        stage_ids = {str(number): stage.info.run_id for number, stage in stages.items()}
        place = {"tracking_uri": without_password(self.uri), "experiment_id": trial.info.experiment_id}
        write_json(run.mirror, {**place, "trial_run_id": trial.info.run_id, "stages": stage_ids, "rows": len(rows)})

    def _end(self, target: Run, ending: values.Ending) -> None:
        """Set the run's status, its end and why; what MLflow holds already is left as it is."""
        client, run_id, known = self._open()[0], target.info.run_id, target.data.tags.get(values.ENDED_TAG)
        if ending.why and known != ending.why:
            client.set_tag(run_id, values.ENDED_TAG, ending.why)
        elif known is not None and not ending.why:
            client.delete_tag(run_id, values.ENDED_TAG)
        if ending.status == "RUNNING" != target.info.status:
            client.update_run(run_id, status="RUNNING")
        elif ending.status != "RUNNING" and ending[:2] != (target.info.status, target.info.end_time):
            client.set_terminated(run_id, status=ending.status, end_time=ending.ended_ms)


def _points(target: Run, rows: list[Row], first: int) -> list[values.Point]:
    # A database that an earlier version filled has the rows, but not their best.
    known = first if values.BEST in target.data.metrics else 0
    return [*values.points(rows, first), *values.best_points(rows, known)]


def _children(trial: Run, found: list[Run]) -> list[Run]:
    return [one for one in found if one.data.tags.get(values.PARENT_TAG) == trial.info.run_id]


def _chunks(items: Iterable[Any], size: int) -> Iterable[list[Any]]:
    rest = iter(items)
    while some := list(islice(rest, size)):
        yield some
