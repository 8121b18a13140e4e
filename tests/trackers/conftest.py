"""A real MLflow in an sqlite file, and a study of two finished runs."""

import pytest
from mirrored import STUDY
from written_runs import experiment, finish_run

from sia.trackers.mlflow.store import connect


@pytest.fixture(scope="session")
def migrated_database(tmp_path_factory):
    # The migration of a new database takes seconds: once is enough.
    path = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    connect(f"sqlite:///{path}")
    return path.read_bytes()


@pytest.fixture
def uri(tmp_path, migrated_database):
    (tmp_path / "mlflow.db").write_bytes(migrated_database)
    return f"sqlite:///{tmp_path / 'mlflow.db'}"


@pytest.fixture
def two_runs(tmp_path):
    return [finish_run(tmp_path, STUDY, experiment(**{"training.seed": seed})) for seed in (0, 1)]
