"""A runs folder, programs that answer as they are told to, and a copy of an empty MLflow database."""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from desk import Desk, forget_answers


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SIA_RUNS", str(tmp_path / "runs"))
    return tmp_path / "runs"


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path / "desk")


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Path]]:
    """Puts a program into PATH that does this; the file of the arguments that it was called with, a line a call."""
    forget_answers()

    def put(name: str, does: str = "") -> Path:
        fake, log = tmp_path / "bin" / name, tmp_path / f"{name}.log"
        fake.parent.mkdir(exist_ok=True)
        fake.write_text(f'#!/bin/sh\necho "$*" >> {log}\n{does}\n')
        fake.chmod(0o755)
        monkeypatch.setenv("PATH", f"{fake.parent}:{os.environ['PATH']}")
        forget_answers()
        return log

    yield put
    forget_answers()


@pytest.fixture
def uri(root: Path, tmp_path: Path, migrated_database: Path) -> str:
    shutil.copy(migrated_database, tmp_path / "mlflow.db")
    return f"sqlite:///{tmp_path / 'mlflow.db'}"
