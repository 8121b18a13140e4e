"""A database whose maker is killed does not keep anybody from the store; one with data in it is never moved."""

import signal
import sqlite3
import subprocess
import sys
from contextlib import closing

import pytest
from desk import wait_until

from sia.trackers.mlflow import database
from sia.trackers.mlflow.store import connect, sqlite_path, store_faults

CONNECT = "import sys; from sia.trackers.mlflow.store import connect; connect(sys.argv[1])"


@pytest.fixture(autouse=True)
def hasty(monkeypatch):
    monkeypatch.setattr(database, "ABANDONED_SECONDS", 0.3)


def written(folder) -> int:
    """Bytes of all files that lie in the folder now."""
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.stat().st_size if path.is_file() else 0
        except FileNotFoundError:
            continue
    return total


@pytest.mark.slow
@pytest.mark.parametrize("size", [1, 85_000, 500_000])
def test_a_maker_that_is_killed_leaves_nothing_that_harms(tmp_path, size):
    """Killed once it has written so many bytes; a whole database has 950,000."""
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    maker = subprocess.Popen([sys.executable, "-c", CONNECT, uri])
    wait_until(lambda: written(tmp_path) >= size or maker.poll() is not None, 60, "the database")
    maker.send_signal(signal.SIGKILL)
    assert maker.wait() == -signal.SIGKILL
    assert connect(uri).search_experiments()
    assert {path.name for path in tmp_path.iterdir()} == {"mlflow.db", "mlflow.db.lock"}


def half_made(path, migrated_database) -> None:
    """A database as a maker of an earlier version, or `mlflow ui`, leaves it: half of its tables, no row."""
    path.write_bytes(migrated_database)
    with closing(sqlite3.connect(path)) as database:
        database.execute("DELETE FROM experiments")
        database.execute("UPDATE alembic_version SET version_num = '451aebb31d03'")
        database.execute("DROP TABLE jobs")
        database.execute("DROP TABLE trace_info")
        database.commit()


def test_one_that_was_found_half_made_is_moved_aside(tmp_path, migrated_database, capsys):
    half_made(tmp_path / "mlflow.db", migrated_database)
    (tmp_path / "mlflow.db-journal").write_bytes(b"")
    connect(f"sqlite:///{tmp_path / 'mlflow.db'}").create_experiment("size")
    (aside,) = tmp_path.glob("mlflow.db.half-made-*[0-9]")
    said = capsys.readouterr().err
    assert len(said.splitlines()) == 1 and str(aside) in said
    assert not (tmp_path / "mlflow.db-journal").exists()


@pytest.mark.parametrize("table", ["experiments", "registered_models"])
def test_one_with_data_in_it_is_left_where_it_is(tmp_path, migrated_database, table):
    path = tmp_path / "mlflow.db"
    half_made(path, migrated_database)
    with closing(sqlite3.connect(path)) as database:
        column = "experiment_id, name, workspace" if table == "experiments" else "name, workspace"
        values = "7, 'mine', 'default'" if table == "experiments" else "'mine', 'default'"
        database.execute(f"INSERT INTO {table} ({column}) VALUES ({values})")
        database.commit()
    with pytest.raises(store_faults()):
        connect(f"sqlite:///{path}")
    assert [one.name for one in tmp_path.glob("mlflow.db*") if not one.name.endswith(".lock")] == ["mlflow.db"]
    with closing(sqlite3.connect(path)) as database:
        assert database.execute(f"SELECT name FROM {table}").fetchall() == [("mine",)]


def test_one_that_another_program_is_making_is_waited_for(tmp_path, migrated_database, monkeypatch):
    monkeypatch.setattr(database, "ABANDONED_SECONDS", 2.0)
    path = tmp_path / "mlflow.db"
    half_made(path, migrated_database)
    whole = tmp_path / "whole.db"
    whole.write_bytes(migrated_database)
    rename = "import os, sys, time; time.sleep(1); os.rename(sys.argv[1], sys.argv[2])"
    maker = subprocess.Popen([sys.executable, "-c", rename, str(whole), str(path)])
    assert connect(f"sqlite:///{path}").search_experiments()
    assert maker.wait() == 0 and not list(tmp_path.glob("*half-made*"))


def test_options_links_and_the_journal_of_a_deleted_database(tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "mlflow.db").symlink_to(tmp_path / "disk" / "real.db")
    (tmp_path / "disk" / "real.db-wal").write_bytes(b"of a database that somebody deleted")
    assert connect(f"sqlite:///{tmp_path / 'mlflow.db'}?timeout=3").search_experiments()
    assert (tmp_path / "mlflow.db").is_symlink()
    assert {path.name for path in (tmp_path / "disk").iterdir()} == {"real.db", "real.db.lock"}


def test_a_leftover_of_a_killed_maker_is_removed(tmp_path):
    leftover = tmp_path / ".mlflow.db.abcd.new"
    leftover.mkdir()
    (leftover / "mlflow.db").write_bytes(b"half")
    connect(f"sqlite:///{tmp_path / 'mlflow.db'}")
    assert not leftover.exists()


@pytest.mark.parametrize("uri", ["sqlite:///:memory:", "sqlite://", "sqlite:///file:/x/mlflow.db?mode=ro&uri=true"])
def test_a_store_that_is_no_plain_file_is_left_to_mlflow(uri):
    assert sqlite_path(uri) is None
