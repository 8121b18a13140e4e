"""Ray's worker of a trial dies, as by a host that is short of memory; the study does not notice."""

import os
import signal
import subprocess
from pathlib import Path

import pytest
from desk import Desk, assert_every_epoch_once, in_mid_stage, values, wait_until

pytestmark = pytest.mark.slow


def test_another_worker_attaches_to_the_run(corpus: Path, tmp_path: Path) -> None:
    desk = Desk(tmp_path / "desk")
    desk.write("one.yaml", {"tasks_per_node": 1})
    stages = [{"epochs": 30, "schedule": "calr"}, {"epochs": 1, "schedule": "calr", "lr_scale": 0.5}]
    desk.write("tiny.yaml", {"experiment": values(corpus, stages=stages)})
    driver = desk.start("submit.py", "--grid", "tiny.yaml", "--cluster", "local", "--profile", "one.yaml")
    (run,) = wait_until(lambda: desk.runs("tiny"), 90, desk.log)
    wait_until(lambda: in_mid_stage(run), 90, "an epoch")
    (worker,) = workers(desk)
    os.kill(worker, signal.SIGKILL)
    assert driver.wait(180) == 0, desk.log
    assert_every_epoch_once(run, 31)
    assert run.finished.exists()


def workers(desk: Desk) -> list[int]:
    """The processes of this desk's trials."""
    found = subprocess.run(["pgrep", "-f", "ray::Impl"], capture_output=True, text=True).stdout.split()
    return [int(pid) for pid in found if desk.uri.encode() in Path(f"/proc/{pid}/environ").read_bytes()]
