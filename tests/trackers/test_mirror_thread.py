"""The mirror beside a sweep: what the store does, the sweep does not feel."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import desk
import pytest
from mirrored import STUDY, assert_in_step
from written_runs import begin_run, epoch_row, experiment

from sia.atomic import read_json
from sia.cluster.launch import Launch
from sia.cluster.profile import Profile
from sia.run.folder import RunFolder
from sia.run.row_files import append_row
from sia.sweep.drive import Sweep, drive
from sia.trackers.mlflow.mirror import MlflowMirror, note_file
from sia.trackers.tracker import MirrorThread


@pytest.fixture
def uri(tmp_path, migrated_database):
    """A store that gives a locked database up after a tenth of a second, not after five."""
    (tmp_path / "mlflow.db").write_bytes(migrated_database.read_bytes())
    return f"sqlite:///{tmp_path / 'mlflow.db'}?timeout=0.1"


@contextmanager
def locked(database: Path) -> Iterator[None]:
    holder = sqlite3.connect(database, isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    try:
        yield
    finally:
        holder.execute("ROLLBACK")
        holder.close()


def began(tmp_path: Path) -> RunFolder:
    run = begin_run(tmp_path / "runs", STUDY, experiment())
    append_row(run.metrics, epoch_row(1, 1, 1, 0.1))
    return run


def test_it_mirrors_whatever_listing_the_runs_raises_and_its_stop_brings_the_last_rows(uri, tmp_path):
    run, faults = began(tmp_path), [RuntimeError("first"), OSError("second"), KeyError("third")]

    def listed() -> list[RunFolder]:
        if faults:
            raise faults.pop(0)
        return [run]

    thread = MirrorThread(MlflowMirror(STUDY, uri), listed, every_seconds=0.01)
    thread.start()
    desk.wait_until(note_file(run).exists, 30, "the first row")
    append_row(run.metrics, epoch_row(2, 1, 2, 0.2))
    thread.stop()
    assert thread.mirror.trouble is None
    assert_in_step(uri, run)


def test_a_database_that_another_holds_for_long_is_trouble_until_it_is_released(uri, tmp_path):
    run = began(tmp_path)
    mirror = MlflowMirror(STUDY, uri)
    thread = MirrorThread(mirror, lambda: [run], every_seconds=0.05)
    with locked(tmp_path / "mlflow.db"):
        thread.start()
        desk.wait_until(lambda: "locked" in (mirror.trouble or ""), 30, "the first refusal")
        append_row(run.metrics, epoch_row(2, 1, 2, 0.2))
        assert not note_file(run).exists()
    desk.wait_until(lambda: (read_json(note_file(run)) or {}).get("rows") == 2, 30, "both rows")
    thread.stop()
    assert mirror.trouble is None
    assert_in_step(uri, run)


def test_a_sweep_ends_well_beside_a_locked_database(uri, tmp_path, corpus, monkeypatch, capsys):
    """It trains to its end, says so in one line, and the next drive brings MLflow all of it once."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.setenv("SIA_RUNS", str(tmp_path / "runs"))
    config = desk.experiment(corpus)
    run = RunFolder(tmp_path / "runs" / STUDY / config.run_name)
    launches = {run.name: Launch("debug", Profile())}
    sweep = Sweep(STUDY, [run], launches, "none", create=lambda: run.create(config))
    with locked(tmp_path / "mlflow.db"):
        assert drive(sweep) == {}
    assert run.finished.exists() and not note_file(run).exists()
    assert "locked" in capsys.readouterr().err
    assert drive(sweep) == {}
    assert_in_step(uri, run)


@pytest.mark.parametrize(("status", "body"), [(500, b"out of order"), (200, b"<html>a login page</html>"), (403, b"")])
def test_a_server_that_answers_nonsense_is_trouble(tmp_path, monkeypatch, status, body):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    run = began(tmp_path)
    with serving(status, body) as uri:
        mirror = MlflowMirror(STUDY, uri)
        mirror.sync([run])
    assert mirror.trouble and "\n" not in mirror.trouble and not note_file(run).exists()
    mirror.sync([run])  # nobody serves it now
    assert mirror.trouble and f"MLflow at {uri}" in mirror.trouble


@contextmanager
def serving(status: int, body: bytes) -> Iterator[str]:
    class Answer(BaseHTTPRequestHandler):
        def answer(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST = answer

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Answer) as server:
        thread = Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()
