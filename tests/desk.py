"""A working folder from which the real commands are run, and a pair so small that a stage trains in a second."""

import io
import os
import runpy
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import pytest
import yaml
from tiny_corpus import SIDE

from sia.atomic import read_json
from sia.cluster.slurm_says import ACCOUNTING
from sia.config import Experiment, resolve
from sia.run.folder import RunFolder
from sia.run.lock import holder_of
from sia.run.queue import QUEUE
from sia.run.row_files import Row, read_rows

REPOSITORY = Path(__file__).resolve().parents[1]


def values(corpus: Path, **dotted: Any) -> dict[str, Any]:
    """The experiment's keys, dotted: one stage of 2 epochs, then 1 from its best at half the rate."""
    return {
        "model": {"latent_size": 8, "gru_layers": 1},
        "model.image": {"blocks": [1, 1], "growth_rate": 4, "initial_features": 4},
        "data": {"corpus": "tiny", "folder": str(corpus), "crop_size": 16, "short_side": SIDE, "bucket_size": 2},
        "optimizer": {"learning_rate": 2e-3},
        "training": {"batch_size": 4, "train_recall_sample": 4},
        "stages": [{"epochs": 2, "schedule": "calr"}, {"epochs": 1, "schedule": "calr", "lr_scale": 0.5}],
        "runtime": {"num_workers": 0, "keep_every_epochs": 0},
        **dotted,
    }


def experiment(corpus: Path, **dotted: Any) -> Experiment:
    return resolve(values(corpus), dotted, source="test")


class Desk:
    """A working folder of its own, from which the repository's commands are run as a person runs them."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.uri = f"sqlite:///{folder / 'mlflow.db'}"
        self.environment = {**os.environ, "MLFLOW_TRACKING_URI": self.uri}
        self.environment.pop("SIA_RUNS", None)

    def write(self, name: str, content: Any) -> Path:
        path = self.folder / name
        path.write_text(content if isinstance(content, str) else yaml.safe_dump(content, sort_keys=False))
        return path

    def command(self, *arguments: object) -> list[str]:
        return [sys.executable, str(REPOSITORY / "jobs" / str(arguments[0])), *map(str, arguments[1:])]

    def run(self, *arguments: object, timeout: float = 60, **environment: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            self.command(*arguments),
            cwd=self.folder,
            env={**self.environment, **environment},
            capture_output=True,
            text=True,
            timeout=timeout,
        )

    def call(self, *arguments: object, **environment: str) -> "subprocess.CompletedProcess[str]":
        """As `run`, within this process, which has loaded what commands need; for one that leaves nothing behind."""
        out, err, (_, script, *flags) = io.StringIO(), io.StringIO(), self.command(*arguments)
        mask, status = os.umask(0o022), None
        handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        forget_answers()
        with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
            patch.chdir(self.folder)
            patch.setattr("sys.argv", [script, *flags])
            patch.delenv("SIA_RUNS", raising=False)
            for name, value in {**self.environment, **environment}.items():
                patch.setenv(name, value)
            try:
                runpy.run_path(script, run_name="__main__")
            except SystemExit as ended:
                status = ended.code
            finally:
                os.umask(mask)
                for number, handler in handlers.items():
                    signal.signal(number, handler)
                forget_answers()
        return subprocess.CompletedProcess([script, *flags], status, out.getvalue(), err.getvalue())

    def start(self, *arguments: object) -> "subprocess.Popen[str]":
        """A command in the background, leading a process group of its own, its output in `started.log`."""
        with open(self.folder / "started.log", "w") as log:
            return subprocess.Popen(
                self.command(*arguments),
                cwd=self.folder,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                text=True,
                start_new_session=True,
            )

    @property
    def log(self) -> str:
        return (self.folder / "started.log").read_text()

    def runs(self, study: str) -> list[RunFolder]:
        return [RunFolder(path.parent) for path in sorted((self.folder / "runs" / study).glob("*/config.yaml"))]


def forget_answers() -> None:
    """What squeue and sacct said before."""
    for asked in (QUEUE, ACCOUNTING):
        vars(asked).update(vars(type(asked)()))


def wait_until(condition: Callable[[], Any], seconds: float, what: str) -> Any:
    """What `condition` returns once it is true; fails after so many seconds."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds} s: {what}")
        time.sleep(0.05)
    return found


def epoch_rows(run: RunFolder) -> list[Row]:
    return [row for row in read_rows(run.metrics) if "stage_epoch" in row]


def test_rows(run: RunFolder) -> list[Row]:
    return [row for row in read_rows(run.metrics) if "stage_epoch" not in row]


test_rows.__test__ = False  # type: ignore[attr-defined]


def assert_every_epoch_once(run: RunFolder, epochs: int) -> None:
    assert [row["epoch"] for row in epoch_rows(run)] == list(range(1, epochs + 1))


def in_mid_stage(run: RunFolder, number: int = 1, epochs: int = 1) -> bool:
    """Whether a job holds the run, in this stage, with so many epochs done and the stage not."""
    holder = holder_of(run.lock)
    under_way = holder is not None and holder.stage == number and not run.stage(number).done.exists()
    return under_way and len([row for row in epoch_rows(run) if row["stage"] == number]) >= epochs


def job_of(run: RunFolder, number: int = 1) -> str:
    record = read_json(run.stage(number).job)
    return record["job_id"] if record else ""


def mlflow_history(uri: str, study: str) -> dict[str, dict[str, list[int]]]:
    """MLflow run name -> metric -> the steps that were logged, doubles included; fails for runs of one name."""
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=uri)
    own = "tags.`sia.kind` != 'report'"
    found = client.search_runs([client.get_experiment_by_name(study).experiment_id], own)
    histories: dict[str, dict[str, list[int]]] = {}
    for run in found:
        stage = run.data.tags.get("sia.stage", "")
        name = run.data.tags["sia.run"].partition("/")[2] + (f"/{stage}" if stage else "")
        assert name not in histories, f"MLflow holds two runs of {name}"
        epochs = [key for key in run.data.metrics if not key.startswith("step/")]
        steps = {key: client.get_metric_history(run.info.run_id, key) for key in epochs}
        histories[name] = {key: sorted(point.step for point in points) for key, points in steps.items()}
    return histories


def mlflow_status(uri: str, study: str) -> set[str]:
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=uri)
    return {run.info.status for run in client.search_runs([client.get_experiment_by_name(study).experiment_id])}
