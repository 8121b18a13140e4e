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
from sia.trackers.mlflow.mirror import MlflowMirror, mirrored_at
from sia.trackers.mlflow.store import connect, store_faults, tracking_uri, without_password
from sia.trackers.mlflow.values import ID_TAG
from sia.trackers.run_id import run_id

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


def log_export(run: RunFolder, export: Path, columns: Sequence[str] = COLUMNS) -> str:
    """Log the exported folder as a pyfunc model that embeds these columns; its URI, `models:/m-...`.

    The run is mirrored first where MLflow does not hold it. Raises UserError where the store is out of reach.
    """
    uri = tracking_uri()
    try:
        client = connect(uri)
        run_id = _mirrored_run(client, run, uri)
        return _log(client, uri, run_id, export, columns)
    except store_faults() as fault:
        said = without_password(f"MLflow at {uri}: {one_line(str(fault))}")
        raise UserError(f"{said}; set MLFLOW_TRACKING_URI, or give --no-mlflow") from None


def _mirrored_run(client: Any, run: RunFolder, uri: str) -> str:
    if (known := _known_run(client, run, uri)) is not None:
        return known
    mirror = MlflowMirror(run.study, uri)
    mirror.sync([run])
    cursor = mirrored_at(run, uri)
    if cursor is None or mirror.trouble or mirror.left_out:
        raise UserError(f"{mirror.trouble or mirror.left_out.get(run.name)}; mend it, or give --no-mlflow")
    return str(cursor["trial_run_id"])


def _known_run(client: Any, run: RunFolder, uri: str) -> str | None:
    """The MLflow run that mirrors this folder; None where there is none in this store, or it was deleted."""
    from mlflow.exceptions import MlflowException

    cursor = mirrored_at(run, uri)
    if cursor is None:
        return None
    try:
        found = client.get_run(cursor["trial_run_id"])
    except MlflowException:
        return None
    # The note in a copied folder is of the folder that it was copied from.
    own = found.data.tags.get(ID_TAG) == run_id(run) and found.info.lifecycle_stage == "active"
    return str(found.info.run_id) if own else None


def _log(client: Any, uri: str, run_id: str, export: Path, columns: Sequence[str]) -> str:
    import mlflow

    mlflow.set_tracking_uri(uri)
    before = client.get_run(run_id).info
    try:
        with mlflow.start_run(run_id=run_id, log_system_metrics=False):
            info = mlflow.pyfunc.log_model(
                name=MODEL_NAME,
                python_model=str(Path(__file__).with_name("model.py")),
                artifacts={ARTIFACT: str(export)},
                code_paths=[str(PACKAGE_FOLDER)],
                signature=signature(columns),
                input_example=input_example(columns),
                pip_requirements=[f"{name}=={version(name)}" for name in PACKAGES],
            )
    finally:
        _restore_status(client, before)
    return str(info.model_uri)


def _restore_status(client: Any, before: Any) -> None:
    """Logging a model begins and ends the MLflow run anew; how the run ended is for its mirror to say."""
    if before.status == "RUNNING":
        client.update_run(before.run_id, status="RUNNING")
    else:
        client.set_terminated(before.run_id, status=before.status, end_time=before.end_time)


def signature(columns: Sequence[str]) -> Any:
    """Columns `speech` and `image` of text, any may be missing; an embedding of each."""
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, Schema
    from mlflow.types.schema import Array

    # MLflow's lists are of either kind of column.
    inputs: list[Any] = [ColSpec(DataType.string, name, required=False) for name in columns]
    outputs: list[Any] = [
        ColSpec(Array(DataType.double), f"{name}_embedding", required=False) for name in ("speech", "image")
    ]
    return ModelSignature(Schema(inputs), Schema(outputs))


def input_example(columns: Sequence[str]) -> Any:
    """A quarter of a second of a tone, and a grey square; of these the columns."""
    import pandas

    sound, picture = io.BytesIO(), io.BytesIO()
    soundfile.write(sound, 0.1 * np.sin(np.arange(4000) / 5).astype(np.float32), 16_000, format="WAV")
    Image.new("RGB", (32, 32), "grey").save(picture, "PNG")
    files = {"speech": sound.getvalue(), "image": picture.getvalue()}
    return pandas.DataFrame({name: [base64.b64encode(files[name]).decode()] for name in columns})
