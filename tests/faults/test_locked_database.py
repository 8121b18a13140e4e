"""MLflow's database is locked while a study runs: the study does not wait for it, and nothing is missing in the end."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from desk import Desk, mlflow_status, values, wait_until
from slurm_box import CHAIN, assert_nothing_lost, assert_same_bits, ended_in_any_case

from sia.run.folder import RunFolder
from sia.trackers.mlflow.mirror import note_file
from sia.trackers.mlflow.store import connect

pytestmark = [pytest.mark.slow, pytest.mark.slurm]


def test_a_database_that_is_locked_until_the_end(long_corpus: Path, undisturbed: RunFolder, tmp_path: Path) -> None:
    desk = Desk(tmp_path / "desk")
    desk.write("one.yaml", {"partition": "dev", "timeout_min": 20})
    desk.write("tiny.yaml", {"experiment": values(long_corpus, stages=CHAIN)})
    connect(desk.uri)  # makes the tables
    with closing(sqlite3.connect(desk.folder / "mlflow.db", isolation_level=None)) as database:
        database.execute("BEGIN EXCLUSIVE")
        driver = desk.start("submit.py", "--grid", "tiny.yaml", "--cluster", "slurm", "--profile", "one.yaml")
        with ended_in_any_case(desk, "tiny", driver):
            (run,) = wait_until(lambda: desk.runs("tiny"), 60, desk.log)
            wait_until(run.finished.exists, 180, f"the run's end\n{desk.log}")
            assert not note_file(run).exists(), "nothing could be mirrored"
            database.execute("ROLLBACK")
            assert driver.wait(120) == 0, desk.log
    assert_nothing_lost(desk, run)
    assert_same_bits(run, undisturbed)
    assert mlflow_status(desk.uri, "tiny") == {"FINISHED"}
