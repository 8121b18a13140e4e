"""The ranks of a pack's runs that are forked from it: each hears, writes and ends for itself."""

import os
import signal
import time

import pytest

from sia.cluster.pack_job import POLL_SECONDS, Pack, _forked, _rest
from sia.cluster.pack_step import Step
from sia.cluster.stage_job import Place, TrainStage
from sia.run.folder import RunFolder


def test_a_rank_is_forked_with_logs_variables_and_signals_of_its_own(tmp_path, monkeypatch):
    """It is told to end before it has begun: neither what this process does at a signal, nor nothing, is its answer."""
    monkeypatch.setattr(
        "sia.cluster.pack_step.train", lambda *given: os.write(1, f"{os.environ['OWN']} {given}".encode())
    )
    before = signal.signal(signal.SIGTERM, lambda *_: None)
    try:
        ended = _forked(str(tmp_path / "1_log"), {"OWN": "its own"}, ("task",))
        monkeypatch.setattr("sia.cluster.pack_step.train", lambda *given: time.sleep(60))
        told = _forked(str(tmp_path / "2_log"), {}, ())
        told.send_signal(signal.SIGTERM)
        for rank in (ended, told):
            rank.join(30)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert (ended.poll(), told.poll()) == (0, -signal.SIGTERM)
    assert (tmp_path / "1_log.out").read_text() == "its own ('task',)" and "OWN" not in os.environ


def test_who_ended_before_the_others_of_its_run_is_not_waited_for(tmp_path, monkeypatch):
    """It would be found ended at once, again and again."""
    monkeypatch.setattr("sia.cluster.pack_step.train", lambda seconds: time.sleep(float(seconds)))
    ended, lives = (_forked(str(tmp_path / seconds), {}, (seconds,)) for seconds in ("0", "60"))
    ended.join(30)
    began = time.monotonic()
    _rest([Step(TrainStage(str(tmp_path), 1, 1), tmp_path, [ended, lives])])
    assert time.monotonic() - began >= 0.9 * POLL_SECONDS
    lives.kill()
    lives.join(30)


def test_a_pack_that_fails_tells_its_forked_runs_to_end(tmp_path, monkeypatch):
    monkeypatch.setattr("sia.cluster.pack_step.train", lambda: time.sleep(60))
    run, places = RunFolder(tmp_path / "study" / "run"), iter([tmp_path / "run.json"])
    step = Step(TrainStage(str(run.path), 1, 1), tmp_path / "run.json", [_forked(str(tmp_path / "log"), {}, ())])
    monkeypatch.setattr(Place, "of_submitit", lambda: Place(job_id="7", cluster="local"))
    monkeypatch.setattr(Pack, "_next", lambda *_: next(places))
    monkeypatch.setattr(Pack, "_start", lambda *_: step)
    pack = Pack(str(tmp_path / "study" / "packs" / "1"), places=2, ranks=1, cpus=1)
    pack.of_pack.path.mkdir(parents=True)
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR2)}
    try:
        with pytest.raises(StopIteration):
            pack()
    finally:
        for number, action in before.items():
            signal.signal(number, action)
    step.processes[0].join(10)
    assert step.processes[0].poll() == -signal.SIGTERM
