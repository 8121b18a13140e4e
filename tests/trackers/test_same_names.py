"""Two people with the same grid on one store: each run folder has MLflow runs of its own, and deletes no other's."""

import os
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from socket import socket

import pytest
from desk import wait_until
from mirrored import STUDY, assert_in_step, mirrored, mlflow_runs
from written_runs import begin_run, epoch_row, experiment

from sia.atomic import read_json, write_json
from sia.run.folder import RunFolder
from sia.run.row_files import append_row, read_rows, write_rows
from sia.trackers.mlflow.export import _mirrored_run
from sia.trackers.mlflow.mirror import MlflowMirror
from sia.trackers.mlflow.store import connect
from sia.trackers.run_id import id_file, run_id


def begun(root, epochs=1) -> RunFolder:
    run = begin_run(root, STUDY, experiment())
    for epoch in range(1, epochs + 1):
        append_row(run.metrics, epoch_row(epoch, 1, epoch, 0.1 * epoch))
    return run


def trials(uri) -> dict[str, list]:
    """The trials of the study by the folder that they mirror."""
    found: dict[str, list] = {}
    for one in mlflow_runs(uri)[1]:
        if "sia.stage" not in one.data.tags:
            found.setdefault(one.data.tags["sia.folder"], []).append(one)
    return found


def assert_complete(uri, run) -> str:
    (trial,) = trials(uri)[str(run.path)]
    assert_in_step(uri, run, trial)
    return trial.info.run_id


def deleted(uri) -> list:
    client = connect(uri)
    return client.search_runs([client.get_experiment_by_name(STUDY).experiment_id], run_view_type=2)


def mirror_in_turn(uri, runs):
    """The ids of their trials after each has got new rows, each time with the mirror of its own driver."""
    mirrors = {run.path: MlflowMirror(STUDY, uri) for run in runs}
    for _ in range(3):
        for number, run in enumerate(runs):
            epoch = read_rows(run.metrics)[-1]["epoch"] + 1
            append_row(run.metrics, epoch_row(epoch, 1, epoch, 0.1 * epoch + 0.01 * number))
            mirrors[run.path].sync([run])
            assert mirrors[run.path].trouble is None and not mirrors[run.path].left_out
    return [assert_complete(uri, run) for run in runs]


def test_two_roots_with_one_grid_keep_their_own_runs(uri, tmp_path):
    runs = [begun(tmp_path / person) for person in ("ada", "bob")]
    first = mirror_in_turn(uri, runs)
    assert len(set(first)) == 2 and not deleted(uri)
    assert mirror_in_turn(uri, runs) == first


def test_a_resume_that_cuts_rows_deletes_its_own_runs_alone(uri, tmp_path):
    ada, bob = (begun(tmp_path / person, epochs=3) for person in ("ada", "bob"))
    mirrored(uri, [ada])
    mirrored(uri, [bob])
    kept = assert_complete(uri, ada)
    write_rows(bob.metrics, read_rows(bob.metrics)[:1])
    mirrored(uri, [bob])
    assert assert_complete(uri, ada) == kept
    assert_complete(uri, bob)
    assert {one.data.tags["sia.run"] for one in deleted(uri)} == {f"{STUDY}/{bob.name}"} and len(deleted(uri)) == 2


def restored(ada):
    shutil.copytree(ada, ada.with_name("backup"))
    shutil.rmtree(ada)
    return shutil.copytree(ada.with_name("backup"), ada)


def moved_to_another_file_system(ada):
    shutil.copytree(ada, ada.with_name("elsewhere"))
    shutil.rmtree(ada)
    return ada.with_name("elsewhere")


def linked(ada):
    ada.with_name("link").symlink_to(ada)
    return ada.with_name("link")


@pytest.mark.parametrize(
    "move", [lambda ada: ada.rename(ada.with_name("elsewhere")), moved_to_another_file_system, restored, linked]
)
def test_a_folder_that_is_found_elsewhere_keeps_its_mlflow_runs(uri, tmp_path, move):
    run = begun(tmp_path / "ada")
    mirrored(uri, [run])
    before = assert_complete(uri, run)
    found = RunFolder(move(tmp_path / "ada") / STUDY / run.name)
    append_row(found.metrics, epoch_row(2, 1, 2, 0.2))
    mirrored(uri, [found])
    assert assert_complete(uri, found) == before and len(trials(uri)) == 1


@pytest.mark.parametrize("copy_first", [True, False])
def test_a_copy_of_a_folder_becomes_a_run_of_its_own(uri, tmp_path, copy_first):
    run = begun(tmp_path / "ada", epochs=2)
    mirrored(uri, [run])
    before = assert_complete(uri, run)
    shutil.copytree(tmp_path / "ada", tmp_path / "copy")
    copy = RunFolder(tmp_path / "copy" / STUDY / run.name)
    write_rows(copy.metrics, read_rows(copy.metrics)[:1])
    pair = [copy, run] if copy_first else [run, copy]
    mirror_in_turn(uri, pair)
    assert assert_complete(uri, run) == before != assert_complete(uri, copy)
    # An export is logged under the copy, though its mlflow.json was copied with it.
    assert _mirrored_run(connect(uri), MlflowMirror(STUDY, uri), copy) == assert_complete(uri, copy)
    assert not deleted(uri)


def test_a_copy_on_another_host_is_a_run_of_its_own(uri, tmp_path):
    """From there it cannot be seen whether the folder that it was copied from is still there."""
    run = begun(tmp_path / "ada")
    mirrored(uri, [run])
    before = assert_complete(uri, run)
    shutil.copytree(tmp_path / "ada", tmp_path / "copy")
    shutil.rmtree(tmp_path / "ada")
    copy = RunFolder(tmp_path / "copy" / STUDY / run.name)
    write_json(id_file(copy), {**read_json(id_file(copy)), "host": "elsewhere"})
    mirrored(uri, [copy])
    assert assert_complete(uri, copy) != before == trials(uri)[str(run.path)][0].info.run_id
    assert not deleted(uri)


def test_two_who_mirror_a_folder_for_the_first_time_give_it_one_id(tmp_path):
    run = begun(tmp_path / "ada")
    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(lambda _: run_id(run), range(8)))) == 1
    assert [path.name for path in run.path.glob("*run_id*")] == ["run_id.json"]


@contextmanager
def server(folder) -> Iterator[str]:
    with closing(socket()) as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    store = f"sqlite:///{folder / 'mlflow.db'}"
    command = [sys.executable, "-m", "mlflow", "server", "--workers", "1", "--port", str(port)]
    process = subprocess.Popen(
        [*command, "--backend-store-uri", store, "--artifacts-destination", str(folder / "artifacts")],
        cwd=folder,
        env={**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        wait_until(lambda: _answers(f"http://127.0.0.1:{port}/health"), 60, "the server")
        yield f"http://127.0.0.1:{port}"
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, 15)
        process.wait(20)


def _answers(url) -> bool:
    with suppress(OSError), urllib.request.urlopen(url, timeout=2) as answer:
        return answer.status == 200
    return False


@pytest.mark.slow
def test_two_roots_on_one_server(uri, tmp_path):
    with server(tmp_path) as address:
        mirror_in_turn(address, [begun(tmp_path / person) for person in ("ada", "bob")])
        assert not deleted(address)
