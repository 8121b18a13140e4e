"""An MLflow database that was made once, for the tests that mirror into one."""

import shutil

import pytest

from sia.trackers.mlflow.store import connect


@pytest.fixture(scope="session")
def migrated_database(tmp_path_factory):
    path = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    connect(f"sqlite:///{path}")
    return path


@pytest.fixture
def uri(tmp_path, migrated_database, monkeypatch):
    monkeypatch.setenv("SIA_RUNS", str(tmp_path / "runs"))
    shutil.copy(migrated_database, tmp_path / "mlflow.db")
    return f"sqlite:///{tmp_path / 'mlflow.db'}"
