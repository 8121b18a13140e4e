from pathlib import Path

import pytest

from sia.trackers.mlflow.store import (
    artifact_location,
    network_mount_warning,
    sqlite_path,
    tracking_uri,
    without_password,
)

MOUNTS = """\
/dev/sda1 / ext4 rw,relatime 0 0
server:/home /home nfs4 rw,vers=4.2 0 0
/dev/nvme0n1 /home/scratch xfs rw 0 0
storage@o2ib:/work /work\\040space lustre rw 0 0
me@host: /mnt/far fuse.sshfs rw 0 0
"""


@pytest.mark.parametrize(
    ("path", "file_system"),
    [
        ("/var/mlflow.db", None),
        ("/home/me/mlflow.db", "nfs4"),
        ("/home/scratch/mlflow.db", None),
        ("/homestead/mlflow.db", None),
        ("/work space/mlflow.db", "lustre"),
        ("/mnt/far/mlflow.db", "fuse.sshfs"),
    ],
)
def test_the_mount_that_holds_the_database_decides(path, file_system):
    warning = network_mount_warning(f"sqlite:///{path}", MOUNTS)
    assert (warning is None) == (file_system is None)
    if warning:
        assert path in warning and file_system in warning and "MLFLOW_TRACKING_URI" in warning


def test_a_server_is_no_sqlite_file():
    assert network_mount_warning("http://host:5000", MOUNTS) is None
    assert sqlite_path("postgresql://host/home/db") is None


def test_the_database_lies_in_the_repository_root(monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    root = Path(__file__).parents[2]
    assert sqlite_path(tracking_uri()) == root / "mlflow.db"
    assert artifact_location(tracking_uri(), "size") == (root / "mlartifacts" / "size").as_uri()


def test_the_environment_names_another_store(monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://host:5000")
    assert tracking_uri() == "http://host:5000"
    assert artifact_location(tracking_uri(), "size") is None


def test_options_of_the_store_are_no_part_of_its_path():
    assert sqlite_path("sqlite:////home/me/mlflow.db?timeout=60") == Path("/home/me/mlflow.db")
    assert "nfs4" in str(network_mount_warning("sqlite:////home/me/mlflow.db?timeout=60", MOUNTS))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("https://me:hunter2@host:5000/a", "https://host:5000/a"),
        ("postgresql+psycopg2://me:hunter2@host/db", "postgresql+psycopg2://host/db"),
        ("API request to http://me:hunter2@host/api failed", "API request to http://host/api failed"),
        ("sqlite:////home/me@work/mlflow.db", "sqlite:////home/me@work/mlflow.db"),
        ("http://host:5000/a@b", "http://host:5000/a@b"),
    ],
)
def test_a_stores_password_is_not_told(text, told):
    assert without_password(text) == told
