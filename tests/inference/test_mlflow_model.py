"""An export in a real MLflow: logged, loaded, and served over HTTP."""

import base64
import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas
import pytest
from desk import REPOSITORY, Desk, wait_until
from mlflow import MlflowClient

from sia.atomic import read_json, write_json
from sia.inference.trained_pair import TrainedPair
from sia.run.folder import RunFolder
from sia.trackers.mlflow.mirror import MlflowMirror, note_file

SECONDS_TO_START = 90


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, migrated_database: Path) -> Path:
    """A folder with a new database, whose experiments keep their artifacts there."""
    folder = tmp_path_factory.mktemp("mlflow")
    shutil.copy(migrated_database, folder / "mlflow.db")
    return folder


@pytest.fixture(scope="module")
def exported(run: RunFolder, store: Path) -> tuple[RunFolder, str]:
    """A run that was exported, and the URI of the model."""
    copy = RunFolder(Path(shutil.copytree(run.path, store / "runs" / "study" / run.name)))
    return copy, logged(store, copy)


def logged(store: Path, run: RunFolder) -> str:
    """The URI of the model after a run was exported and logged as a person does it."""
    desk = Desk(store)
    client = MlflowClient(tracking_uri=desk.uri)
    if client.get_experiment_by_name(run.study) is None:
        client.create_experiment(run.study, artifact_location=(store / "artifacts").as_uri())
    done = desk.call("export.py", run.path)
    assert done.returncode == 0 and not done.stderr, done.stderr
    return done.stdout.splitlines()[-1].partition(": ")[0]


def encoded(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()


def queries(raw: Path) -> list[dict[str, str]]:
    """A row with both columns, then one with each alone."""
    speech, image = encoded(raw / "test-0-1-0.wav"), encoded(raw / "test-0-1.png")
    return [{"speech": speech, "image": image}, {"speech": speech}, {"image": image}]


def assert_embeddings(rows: list[dict[str, Any]], pair: TrainedPair, raw: Path) -> None:
    speech = pair.embed_speech(raw / "test-0-1-0.wav").numpy()
    image = pair.embed_image(raw / "test-0-1.png").numpy()
    assert rows[2]["speech_embedding"] is None and rows[1]["image_embedding"] is None
    for row in (0, 1):
        np.testing.assert_allclose(rows[row]["speech_embedding"], speech, rtol=0, atol=1e-6)
    for row in (0, 2):
        np.testing.assert_allclose(rows[row]["image_embedding"], image, rtol=0, atol=1e-6)


@pytest.mark.slow
def test_it_is_logged_without_a_pickle_under_the_run_that_mirrors_the_folder(
    exported: tuple[RunFolder, str], store: Path
) -> None:
    run, uri = exported
    note = read_json(note_file(run)) or {}
    (again,) = MlflowMirror("study", note["tracking_uri"]).log_export(
        run, next((run.path / "exports").iterdir()), ("speech", "image")
    )
    assert not again.startswith(uri)
    client = MlflowClient(tracking_uri=note["tracking_uri"])
    mirrored = client.get_run(note["trial_run_id"])
    assert mirrored.info.run_name == run.name and mirrored.info.status == "FINISHED"
    assert mirrored.info.end_time == int((read_json(run.finished) or {})["time"] * 1000)
    models = client.search_logged_models([note["experiment_id"]])
    assert {model.source_run_id for model in models} == {mirrored.info.run_id} and len(models) == 2
    assert len(client.search_runs([note["experiment_id"]])) == 2, "the run and its stage"
    files = [path for path in (store / "artifacts").rglob("*") if path.is_file()]
    assert {"model.py", "model.safetensors", "config.json"} <= {path.name for path in files}
    assert not [path for path in files if path.suffix in (".pkl", ".pickle", ".pt", ".pth")]


@pytest.mark.slow
def test_a_loaded_model_predicts_what_the_pair_does(
    exported: tuple[RunFolder, str], pair: TrainedPair, raw: Path
) -> None:
    run, uri = exported
    mlflow.set_tracking_uri((read_json(note_file(run)) or {})["tracking_uri"])
    model = mlflow.pyfunc.load_model(uri)
    assert_embeddings(model.predict(pandas.DataFrame(queries(raw))), pair, raw)
    assert len(model.predict(model.input_example)) == 1
    columns = {column.name: column.required for column in model.metadata.signature.inputs}
    assert columns == {"speech": False, "image": False}
    for wrong, said in (("not base64!", "row 0: not base64"), (base64.b64encode(b"noise").decode(), "row 0: the ")):
        with pytest.raises(ValueError, match=said):
            model.predict(pandas.DataFrame({"image": [wrong]}))


@pytest.mark.slow
def test_a_pair_of_other_features_is_logged_for_images_alone(
    run: RunFolder, pair: TrainedPair, store: Path, raw: Path
) -> None:
    other = RunFolder(Path(shutil.copytree(run.path, store / "runs" / "other" / run.name)))
    write_json(other.corpus, {**read_json(other.corpus), "features": {"kind": "melspec", "coefficients": 40}})
    mlflow.set_tracking_uri(Desk(store).uri)
    model = mlflow.pyfunc.load_model(logged(store, other))
    assert [column.name for column in model.metadata.signature.inputs] == ["image"]
    (row,) = model.predict(pandas.DataFrame({"image": [encoded(raw / "test-0-1.png")]}))
    expected = pair.embed_image(raw / "test-0-1.png").numpy()
    np.testing.assert_allclose(row["image_embedding"], expected, rtol=0, atol=1e-6)


@pytest.fixture
def server(exported: tuple[RunFolder, str], store: Path) -> Iterator[str]:
    """The address of `mlflow models serve`, which leads a process group of its own."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "models", "serve", "--model-uri", exported[1], "--port", str(port)]
    tracking = {"MLFLOW_TRACKING_URI": f"sqlite:///{store / 'mlflow.db'}"}
    # MLflow starts uvicorn by its name: it must lie on the path, as in an activated environment.
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    with open(store / "server.log", "w") as log:
        process = subprocess.Popen(
            [*command, "--env-manager", "local"],
            cwd=store,
            env={**os.environ, **tracking, "PATH": path},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        address = f"http://127.0.0.1:{port}"
        wait_until(lambda: process.poll() is not None or answers(f"{address}/ping"), SECONDS_TO_START, "a server")
        assert process.poll() is None, (store / "server.log").read_text()
        yield address
    finally:
        end_group(process)


def end_group(process: "subprocess.Popen[bytes]") -> None:
    """Its whole group, for MLflow leaves uvicorn behind."""
    for kind in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, kind)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(20)


def answers(address: str) -> bool:
    try:
        return bool(urllib.request.urlopen(address, timeout=5).status == 200)
    except OSError:
        return False


def asked(address: str, rows: list[dict[str, str]]) -> Any:
    body = json.dumps({"dataframe_records": rows}).encode()
    request = urllib.request.Request(f"{address}/invocations", body, {"Content-Type": "application/json"})
    return json.loads(urllib.request.urlopen(request, timeout=60).read())


@pytest.mark.slow
@pytest.mark.timeout(200)
def test_a_server_answers_with_the_embeddings_of_the_pair(server: str, pair: TrainedPair, raw: Path) -> None:
    assert_embeddings(asked(server, queries(raw))["predictions"], pair, raw)
    for row in queries(raw)[1:]:
        (alone,) = asked(server, [row])["predictions"]
        assert sum(value is not None for value in alone.values()) == 1
    with pytest.raises(urllib.error.HTTPError) as refusal:
        asked(server, [{"speech": base64.b64encode(b"noise").decode()}])
    assert "row 0: the recording: its bytes are no readable sound" in refusal.value.read().decode()


@pytest.mark.slow
@pytest.mark.timeout(200)
def test_the_guides_requests_are_answered(
    server: str, pair: TrainedPair, raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    guide = (REPOSITORY / "jobs/README.md").read_text().replace("http://127.0.0.1:5001", server)
    shutil.copy(raw / "test-0-1-0.wav", tmp_path / "query.wav")
    shutil.copy(raw / "test-0-1.png", tmp_path / "photo.jpg")
    monkeypatch.chdir(tmp_path)
    image = pair.embed_image(tmp_path / "photo.jpg")
    (request,) = re.findall(r"^```python\n(.*?)^```", guide, re.M | re.S)
    given: dict[str, Any] = {}
    exec(request, given)
    assert given["similarity"] == pytest.approx(float(pair.embed_speech(tmp_path / "query.wav") @ image), abs=1e-5)
    (curl,) = (body for body in re.findall(r"^```bash\n(.*?)^```", guide, re.M | re.S) if "curl" in body)
    answer = subprocess.run(["bash", "-c", curl], capture_output=True, text=True, check=True).stdout
    np.testing.assert_allclose(
        json.loads(answer)["predictions"][0]["image_embedding"], image.numpy(), rtol=0, atol=1e-6
    )
