"""Where MLflow's store lies, and that a database whose maker is killed keeps nobody from it."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest
from desk import wait_until

from sia.trackers.mlflow.store import artifact_location, connect, network_mount_warning, sqlite_path, tracking_uri
from sia.trackers.mlflow.store import without_password as told

CONNECT = "import sys; from sia.trackers.mlflow.store import connect; connect(sys.argv[1])"
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
        ("/home/me/mlflow.db?timeout=60", "nfs4"),
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
        assert path.partition("?")[0] in warning and file_system in warning and "MLFLOW_TRACKING_URI" in warning


def test_the_store_is_a_file_of_the_repository_or_what_the_environment_names(monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    root = Path(__file__).parents[2]
    assert sqlite_path(tracking_uri()) == root / "mlflow.db"
    assert artifact_location(tracking_uri(), "size") == (root / "mlartifacts" / "size").as_uri()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://host:5000")
    assert tracking_uri() == "http://host:5000"
    assert artifact_location(tracking_uri(), "size") is None and network_mount_warning(tracking_uri(), MOUNTS) is None


@pytest.mark.parametrize("uri", ["sqlite:///:memory:", "sqlite://", "sqlite:///file:/x/mlflow.db?mode=ro&uri=true"])
def test_a_store_that_is_no_plain_file_is_left_to_mlflow(uri):
    assert sqlite_path(uri) is None


def test_a_stores_password_is_not_told():
    assert told("https://me:hunter2@host:5000/a") == "https://host:5000/a"
    assert told("postgresql+psycopg2://me:hunter2@host/db") == "postgresql+psycopg2://host/db"
    assert told("API request to http://me:hunter2@host/api failed") == "API request to http://host/api failed"
    for harmless in ("sqlite:////home/me@work/mlflow.db", "http://host:5000/a@b"):
        assert told(harmless) == harmless


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
@pytest.mark.parametrize("size", [1, 500_000])
def test_a_maker_that_is_killed_leaves_nothing_that_harms(tmp_path, size):
    """Killed once it has written so many bytes; a whole database has 950,000."""
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    maker = subprocess.Popen([sys.executable, "-c", CONNECT, uri])
    wait_until(lambda: written(tmp_path) >= size or maker.poll() is not None, 60, "the database")
    maker.send_signal(signal.SIGKILL)
    assert maker.wait() == -signal.SIGKILL
    assert connect(uri).search_experiments()
    assert {path.name for path in tmp_path.iterdir()} == {"mlflow.db", "mlflow.db.lock"}


def test_a_link_the_journal_of_a_deleted_database_and_a_killed_makers_leftover(tmp_path):
    disk = tmp_path / "disk"
    (disk / ".real.db.abcd.new").mkdir(parents=True)
    (disk / ".real.db.abcd.new" / "real.db").write_bytes(b"half")
    (disk / "real.db-wal").write_bytes(b"of a database that somebody deleted")
    (tmp_path / "mlflow.db").symlink_to(disk / "real.db")
    assert connect(f"sqlite:///{tmp_path / 'mlflow.db'}?timeout=3").search_experiments()
    assert (tmp_path / "mlflow.db").is_symlink()
    assert {path.name for path in disk.iterdir()} == {"real.db", "real.db.lock"}
