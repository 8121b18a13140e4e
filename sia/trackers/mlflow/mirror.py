"""Run folders -> MLflow: an experiment a study, a run a trial, a nested run a stage.

One process mirrors a study. What MLflow holds of a run is written on the MLflow run itself (tag `sia.rows`), so that
neither a lost file nor a new database can make it disagree; mlflow.json tells others which MLflow runs those are.
Several people may have runs of one name on one store: a mirror changes only what carries its run's id (tag `sia.id`).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sia.atomic import read_json, write_json
from sia.checks import Finding
from sia.errors import UserError, one_line
from sia.run.folder import RunFolder
from sia.run.metrics import Row
from sia.run.steps import steps_after
from sia.trackers.mlflow import check, values
from sia.trackers.mlflow.store import (
    artifact_location,
    concerns_one_run,
    connect,
    network_mount_warning,
    store_faults,
    tracking_uri,
    without_password,
)
from sia.trackers.mlflow.values import Part, Reading, read_run
from sia.trackers.mlflow.view import experiment_tags, how_to_open
from sia.trackers.tracker import Ending, Mirrored, StoreFault, Tracker

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Experiment, Run

# MLflow takes a thousand values a call.
METRICS_A_CALL, TEXTS_A_CALL = 900, 100


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
        return Mirrored(len(reading.rows), reading.trial.ending.status)

    def how_to_open(self, runs: list[RunFolder]) -> list[str]:
        notes = [note for run in runs if (note := mirrored_at(run, self.uri)) is not None]
        return how_to_open(without_password(self.uri), notes[0]["experiment_id"]) if notes else []

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
        return [check.place(self.uri), check.opens(self.uri), check.ui_port()]

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
        self._bring_steps(trial, run)
        # The rows' mark only after all of it is in.
        self._bring(trial, reading.trial, count, {values.ROWS_TAG: values.rows_mark(rows)})
        stage_ids = {str(number): stage.info.run_id for number, stage in stages.items()}
        place = {"tracking_uri": without_password(self.uri), "experiment_id": trial.info.experiment_id}
        return {**place, "trial_run_id": trial.info.run_id, "stages": stage_ids, "rows": len(rows)}

    def _client(self) -> MlflowClient:
        return self._open()[0]

    def _open(self) -> tuple[MlflowClient, str]:
        """The client and the study's experiment id."""
        if self._store is None:
            client = connect(self.uri)
            experiment: Any = client.get_experiment_by_name(self.study) or self._new_experiment(client)
            if experiment.lifecycle_stage == "deleted":
                # Its name stays taken: there can be no other.
                client.restore_experiment(experiment.experiment_id)
            for key, text in experiment_tags().items():
                # What a person has written there since is left alone.
                if key not in experiment.tags:
                    client.set_experiment_tag(experiment.experiment_id, key, text)
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
        trial, count = _trial(found, reading.rows)
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
        return client.create_run(experiment_id, start_time=part.began_ms, tags=part.tags, run_name=part.name)

    def _bring(self, target: Run, part: Part, first: int, mark: values.Texts | None = None) -> None:
        """Bring parameters and metrics up to date, rows from index `first` on; then tags and status."""
        from mlflow.entities import Metric, Param, RunTag

        client, run_id = self._client(), target.info.run_id
        # A parameter of MLflow cannot change: the first value stands.
        params = [Param(*item) for item in part.parameters.items() if item[0] not in target.data.params]
        points = [point for curves in part.curves[first:] for point in curves]
        points += [point for point in part.newest if target.data.metrics.get(point.key) != point.value]
        tags = {**part.tags, **(mark or {})}
        changed = [RunTag(*item) for item in tags.items() if target.data.tags.get(item[0]) != item[1]]
        calls: Any = zip_longest(_chunks(points, METRICS_A_CALL), _chunks(params, TEXTS_A_CALL), fillvalue=[])
        for some_points, some_params in calls:
            client.log_batch(run_id, [Metric(*point) for point in some_points], some_params)
        for some in _chunks(changed, TEXTS_A_CALL):
            client.log_batch(run_id, tags=some)
        self._end(target, part.ending)

    def _bring_steps(self, trial: Run, run: RunFolder) -> None:
        """Add a row of steps.jsonl a minute, after those that it holds; a resume goes over steps again, to the bit."""
        from mlflow.entities import Metric

        step, time = trial.data.tags.get(values.STEPS_TAG, "0 0").split()
        if rows := values.a_minute_apart(steps_after(run, int(step)), float(time)):
            for some in _chunks(values.step_points(rows), METRICS_A_CALL):
                self._client().log_batch(trial.info.run_id, metrics=[Metric(*point) for point in some])
            self._client().set_tag(trial.info.run_id, values.STEPS_TAG, f"{rows[-1].step} {rows[-1].time}")

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


def _trial(found: list[Run], rows: list[Row]) -> tuple[Run | None, int]:
    """The first trial that holds no row but these, and how many of them."""
    for one in found:
        if values.STAGE_TAG not in one.data.tags and (count := values.mirrored_count(one.data.tags, rows)) is not None:
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
