"""Log an exported pair to MLflow, under the MLflow run that mirrors its run."""

import base64
import io
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from PIL import Image

from sia.errors import UserError, one_line
from sia.run.folder import RunFolder
from sia.trackers.mlflow.store import connect, store_faults, without_password
from sia.trackers.mlflow.values import ID_TAG, KIND_TAG, TRIAL
from sia.trackers.run_id import run_id
from sia.trackers.tracker import Tracker

MODEL_NAME = "pair"
# As model.py beside this file, which MLflow alone loads, names them.
ARTIFACT = "pair"
COLUMNS = ("speech", "image")
# What embedding imports; asked to find out for itself, MLflow would load the model in another process.
PACKAGES = (
    *("torch", "torchaudio", "torchvision", "safetensors", "soundfile", "pillow", "numpy", "h5py"),
    *("pydantic", "pyyaml", "mlflow", "pandas"),
)
PACKAGE_FOLDER = Path(__file__).resolve().parents[2]


def log_export(mirror: Tracker, uri: str, run: RunFolder, export: Path, columns: Sequence[str] = COLUMNS) -> str:
    """Log the exported folder as a pyfunc model that embeds these columns; its URI, `models:/m-...`.

    The run is mirrored first where MLflow does not hold it. Raises UserError where the store is out of reach.
    """
    try:
        client = connect(uri)
        return _log(client, uri, _mirrored_run(client, mirror, run), export, columns)
    except store_faults() as fault:
        said = without_password(f"MLflow at {uri}: {one_line(str(fault))}")
        raise UserError(f"{said}; set MLFLOW_TRACKING_URI, or give --no-mlflow") from None


def _mirrored_run(client: Any, mirror: Tracker, run: RunFolder) -> str:
    """The id of the MLflow run that mirrors this folder."""
    if not (found := _found(client, run)):
        mirror.sync([run])
        if mirror.trouble or mirror.left_out:
            raise UserError(f"{mirror.trouble or mirror.left_out[run.name]}; mend it, or give --no-mlflow")
        found = _found(client, run)
    return str(found[0].info.run_id)


def _found(client: Any, run: RunFolder) -> list[Any]:
    experiment = client.get_experiment_by_name(run.study)
    query = f"tags.`{ID_TAG}` = '{run_id(run)}' and tags.`{KIND_TAG}` = '{TRIAL}'"
    return list(client.search_runs([experiment.experiment_id], query)) if experiment else []


def _log(client: Any, uri: str, mlflow_run: str, export: Path, columns: Sequence[str]) -> str:
    import mlflow

    mlflow.set_tracking_uri(uri)
    before = client.get_run(mlflow_run).info
    try:
        with mlflow.start_run(run_id=mlflow_run, log_system_metrics=False):
            info = mlflow.pyfunc.log_model(
                name=MODEL_NAME,
                python_model=str(Path(__file__).with_name("model.py")),
                artifacts={ARTIFACT: str(export)},
                code_paths=[str(PACKAGE_FOLDER)],
                signature=_signature(columns),
                input_example=_input_example(columns),
                pip_requirements=[f"{name}=={version(name)}" for name in PACKAGES],
            )
    finally:
        # That begins and ends the MLflow run anew; how the run ended is for its mirror to say.
        if before.status == "RUNNING":
            client.update_run(mlflow_run, status="RUNNING")
        else:
            client.set_terminated(mlflow_run, status=before.status, end_time=before.end_time)
    return str(info.model_uri)


def _signature(columns: Sequence[str]) -> Any:
    """Columns `speech` and `image` of text, any may be missing; an embedding of each."""
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, Schema
    from mlflow.types.schema import Array

    inputs: list[Any] = [ColSpec(DataType.string, name, required=False) for name in columns]
    outputs: list[Any] = [ColSpec(Array(DataType.double), f"{name}_embedding", required=False) for name in COLUMNS]
    return ModelSignature(Schema(inputs), Schema(outputs))


def _input_example(columns: Sequence[str]) -> Any:
    """A quarter of a second of a tone, and a grey square; of these the columns."""
    import pandas

    sound, picture = io.BytesIO(), io.BytesIO()
    soundfile.write(sound, 0.1 * np.sin(np.arange(4000) / 5).astype(np.float32), 16_000, format="WAV")
    Image.new("RGB", (32, 32), "grey").save(picture, "PNG")
    files = {"speech": sound.getvalue(), "image": picture.getvalue()}
    return pandas.DataFrame({name: [base64.b64encode(files[name]).decode()] for name in columns})
