"""A copy of an empty MLflow database, for the tests that mirror into one."""

import shutil

import pytest


@pytest.fixture
def uri(tmp_path, migrated_database, monkeypatch):
    monkeypatch.setenv("SIA_RUNS", str(tmp_path / "runs"))
    shutil.copy(migrated_database, tmp_path / "mlflow.db")
    return f"sqlite:///{tmp_path / 'mlflow.db'}"
