"""A real MLflow in an sqlite file, and a study of two finished runs."""

import pytest
from mirrored import STUDY
from written_runs import experiment, finish_run


@pytest.fixture
def uri(tmp_path, migrated_database):
    (tmp_path / "mlflow.db").write_bytes(migrated_database.read_bytes())
    return f"sqlite:///{tmp_path / 'mlflow.db'}"


@pytest.fixture
def two_runs(tmp_path):
    return [finish_run(tmp_path, STUDY, experiment(**{"training.seed": seed})) for seed in (0, 1)]
