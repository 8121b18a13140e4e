"""Run folders -> MLflow: an experiment a study, a run a trial, a nested run a stage.

One process mirrors a study. What MLflow holds of a run is written on the MLflow run itself (tag `sia.rows`), so that
neither a lost file nor a new database can make it disagree; mlflow.json tells others which MLflow runs those are.
Several people may have runs of one name on one store: a mirror changes only what carries its run's id (tag `sia.id`).
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sia.atomic import read_json, write_json
from sia.checks import Finding
from sia.errors import UserError, one_line
from sia.run.folder import RunFolder
from sia.run.metrics import Row
from sia.trackers.mlflow import check, values
from sia.trackers.mlflow.reading import Part, Reading, read_run
from sia.trackers.mlflow.store import (
    artifact_location,
    concerns_one_run,
    connect,
    network_mount_warning,
    store_faults,
    tracking_uri,
    without_password,
)
from sia.trackers.mlflow.view import experiment_tags, how_to_open
from sia.trackers.tracker import Ending, Mirrored, StoreFault, Tracker

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

METRICS_A_CALL = 1000
TEXTS_A_CALL = 100


class MlflowMirror(Tracker):
    """Keeps the MLflow experiment of a study in step with its run folders."""

    name = "MLflow"

    def __init__(self, study: str = "", uri: str | None = None) -> None:
        super().__init__(study, uri)
        self.uri: str = uri or tracking_uri()
        self._store: tuple[MlflowClient, str] | None = None

    def mirror(self, run: RunFolder, closing: Ending | None) -> Mirrored:
        reading = read_run(run, closing)
        try:
            note = self._mirror(run, reading)
        except store_faults() as fault:
            said = without_password(f"MLflow at {self.uri}: {one_line(str(fault))}")
            if concerns_one_run(fault):
                raise UserError(said) from None
            self._store = None
            raise StoreFault(said) from None
        write_json(note_file(run), note)
        return Mirrored(len(reading.trial.rows), reading.trial.ending.status)

    def how_to_open(self, runs: list[RunFolder]) -> list[str]:
        notes = [note for run in runs if (note := mirrored_at(run, self.uri)) is not None]
        return how_to_open(without_password(self.uri), notes[0]["experiment_id"]) if notes else []

    def warning(self) -> str | None:
        return network_mount_warning(self.uri)

    def environment(self) -> dict[str, str]:
        # The code of such a job lies in a snapshot, from which the store of this checkout would not be found.
        return {"MLFLOW_TRACKING_URI": self.uri}

    def findings(self) -> list[Finding]:
        return [check.place(self.uri), check.opens(self.uri), check.ui_port()]

    def _mirror(self, run: RunFolder, reading: Reading) -> dict[str, Any]:
        """Bring it all in; what tells those who show or export the run where it is."""
        trial, stages, count = self._adopt(run, reading)
        trial, rows = trial or self._create(reading.trial), reading.trial.rows
        for number, stage in reading.stages.items():
            # A stage run that was lost or deleted is made anew, with all of its rows.
            known = stages.get(number)
            mirrored = sum(row["stage"] == number for row in rows[:count]) if known else 0
            stages[number] = self._mirror_stage(stage, trial, known, mirrored)
        self._log(trial, reading.trial, count)
        # Only after all of it is in.
        self._client().set_tag(trial.info.run_id, values.ROWS_TAG, values.rows_mark(rows))
        self._end(trial, reading.trial.ending)
        stage_ids = {str(number): stage.info.run_id for number, stage in stages.items()}
        place = {"tracking_uri": without_password(self.uri), "experiment_id": trial.info.experiment_id}
        return {**place, "trial_run_id": trial.info.run_id, "stages": stage_ids, "rows": len(rows)}

    def _mirror_stage(self, part: Part, trial: Run, stage: Run | None, mirrored: int) -> Run:
        part = part._replace(tags={**part.tags, values.PARENT_TAG: trial.info.run_id})
        stage = stage or self._create(part)
        self._log(stage, part, mirrored)
        self._end(stage, part.ending)
        return stage

    def _client(self) -> MlflowClient:
        return self._open()[0]

    def _open(self) -> tuple[MlflowClient, str]:
        """The client and the study's experiment id."""
        if self._store is None:
            client = connect(self.uri)
            experiment = client.get_experiment_by_name(self.study)
            known = experiment.experiment_id if experiment else None
            if experiment and experiment.lifecycle_stage == "deleted":
                # Its name stays taken: there can be no other.
                client.restore_experiment(experiment.experiment_id)
            experiment_id = known or self._new_experiment(client)
            for key, text in experiment_tags().items():
                # What a person has written there since is left alone.
                if experiment is None or key not in experiment.tags:
                    client.set_experiment_tag(experiment_id, key, text)
            self._store = client, experiment_id
        return self._store

    def _new_experiment(self, client: MlflowClient) -> str:
        from mlflow.exceptions import MlflowException

        try:
            return client.create_experiment(self.study, artifact_location=artifact_location(self.uri, self.study))
        except MlflowException:
            made = client.get_experiment_by_name(self.study)  # by somebody else, at the same moment
            if made is None:
                raise
            return made.experiment_id

    def _adopt(self, run: RunFolder, reading: Reading) -> tuple[Run | None, dict[int, Run], int]:
        """The MLflow runs of the trial and of its stages by number, and how many of the rows they hold.

        All others with the run's id are deleted (MLflow can restore them): doubles, orphans, and those with rows that
        a resume has cut from the file since, because MLflow can forget a run but not a row. What carries no id, as
        earlier versions wrote it, is adopted where it is of this folder and these rows, and left alone otherwise.
        """
        found, rows = self._find(run), reading.trial.rows
        own = [one for one in found if one.data.tags.get(values.ID_TAG) == reading.id]
        trial, count = _trial(own, rows)
        if trial is None:
            unmarked = [one for one in found if values.ID_TAG not in one.data.tags and _is_of_folder(one, run)]
            trial, count = _trial(unmarked, rows)
        family = [] if trial is None else [trial, *_children(trial, found)]
        for stray in own:
            if stray not in family:
                self._client().delete_run(stray.info.run_id)
        return trial, {int(one.data.tags[values.STAGE_TAG]): one for one in family[1:]}, count

    def _find(self, run: RunFolder) -> list[Run]:
        """The MLflow runs of this study and name, whosever they are."""
        client, experiment_id = self._open()
        query = f"tags.`{values.RUN_TAG}` = '{run.study}/{run.name}'"
        return list(client.search_runs([experiment_id], query, order_by=["attributes.start_time ASC"]))

    def _create(self, part: Part) -> Run:
        client, experiment_id = self._open()
        return client.create_run(experiment_id, start_time=part.began_ms, tags=part.tags, run_name=part.name)

    def _log(self, target: Run, part: Part, first: int) -> None:
        """Bring parameters and tags up to date, and the rows from index `first` on."""
        from mlflow.entities import Metric, Param, RunTag

        client, run_id = self._client(), target.info.run_id
        # A parameter of MLflow cannot change: the first value stands.
        new = {key: text for key, text in part.parameters.items() if key not in target.data.params}
        changed = {key: text for key, text in part.tags.items() if target.data.tags.get(key) != text}
        for some in _chunks(new.items(), TEXTS_A_CALL):
            client.log_batch(run_id, params=[Param(*item) for item in some])
        for some in _chunks(changed.items(), TEXTS_A_CALL):
            client.log_batch(run_id, tags=[RunTag(*item) for item in some])
        for some in _chunks(_points(target, part.rows, first), METRICS_A_CALL):
            client.log_batch(run_id, metrics=[Metric(*point) for point in some])

    def _end(self, target: Run, ending: Ending) -> None:
        """Set the run's status, its end and why; what MLflow holds already is left as it is."""
        client, run_id, known = self._client(), target.info.run_id, target.data.tags.get(values.ENDED_TAG)
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


def _trial(found: list[Run], rows: list[Row]) -> tuple[Run | None, int]:
    """The first trial that holds no row but these, and how many of them."""
    for one in found:
        if values.STAGE_TAG not in one.data.tags and (count := values.mirrored_count(one.data.tags, rows)) is not None:
            return one, count
    return None, 0


def _is_of_folder(one: Run, run: RunFolder) -> bool:
    return one.data.tags.get(values.FOLDER_TAG) == str(run.path.absolute())


def _children(trial: Run, found: list[Run]) -> list[Run]:
    return [one for one in found if one.data.tags.get(values.PARENT_TAG) == trial.info.run_id]


def _chunks(items: Iterable[Any], size: int) -> Iterable[list[Any]]:
    rest = iter(items)
    while some := list(islice(rest, size)):
        yield some


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
