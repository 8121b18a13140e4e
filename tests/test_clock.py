"""The time of the files, on a host whose own clock is wrong."""

import os
import time
from pathlib import Path

import pytest
from written_runs import begin_run, experiment

from sia import clock
from sia.operate.clean import is_old
from sia.operate.status import view
from sia.run.lock import HeartbeatLock


@pytest.fixture(params=[-3600.0, 3600.0, 48 * 3600.0])
def real(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> float:
    """The right time; this host thinks that it is another."""
    now = time.time()
    monkeypatch.setattr("time.time", lambda: now + request.param)
    return now


def test_now_is_when_a_file_is_written(tmp_path: Path, real: float) -> None:
    assert clock.now(tmp_path) == pytest.approx(real, abs=5)
    assert clock.now(tmp_path / "none") == time.time(), "where nothing can be written this host's clock must do"
    assert list(tmp_path.iterdir()) == []
    file = tmp_path / "file"
    file.touch()
    os.utime(file, (real - 100, real - 100))
    assert clock.age_seconds(file) == pytest.approx(100, abs=5)


def test_heartbeats_and_leftovers_have_their_age(tmp_path: Path, real: float) -> None:
    run = begin_run(tmp_path, "size", experiment())
    with HeartbeatLock(run.lock, job_id="17", stage=1):
        found = view(run)
        assert found.state == "running" and found.heartbeat_seconds is not None and found.heartbeat_seconds < 10
    assert not is_old(run.config)
    os.utime(run.config, (real - 25 * 3600,) * 2)
    assert is_old(run.config)
