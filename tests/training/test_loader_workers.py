"""A loader's workers end with their trainer, and a trainer whose worker is killed is lost, not failed."""

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path
from uuid import uuid4

import pytest
from desk import epoch_rows, experiment, wait_until

from sia.run.folder import RunFolder
from sia.sweep.chain import plan_stage

pytestmark = pytest.mark.slow
TRAIN = """
import os, signal, sys
from sia.cluster.stage_job import Place, TrainStage
from sia.data import loader
from sia.training import fit

class Killed(loader.DataLoader):
    def __iter__(self):
        super().__iter__()
        os.kill(os.getpid(), signal.SIGKILL)  # its workers are being born

if __name__ == "__main__":
    if sys.argv[2] == "at birth":
        loader.DataLoader = Killed
    TrainStage(sys.argv[1], 1, 1).train(Place())
"""


class Trainer:
    """A process that trains a run with two loader workers; its children carry its mark."""

    def __init__(self, folder: Path, corpus: Path, how: str) -> None:
        settings = {"stages": [{"epochs": 4000, "schedule": "calr"}], "runtime.num_workers": 2}
        config = experiment(corpus, **settings)
        self.run = RunFolder(folder / "study" / config.run_name)
        self.run.create(config)
        plan_stage(self.run, 1)
        self.mark = f"SIA_TEST={uuid4().hex}"
        script = folder / "train.py"
        script.write_text(TRAIN)
        name, _, value = self.mark.partition("=")
        environment = {**os.environ, name: value}
        with open(folder / "log", "w") as log:
            command = [sys.executable, str(script), str(self.run.path), how]
            self.process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)

    def left(self) -> list[int]:
        """Every process of it but itself."""
        found = []
        for place in Path("/proc").glob("[0-9]*"):
            try:
                if self.mark.encode() in (place / "environ").read_bytes().split(b"\0"):
                    found.append(int(place.name))
            except OSError:
                continue
        return [pid for pid in found if pid != self.process.pid]

    def workers(self) -> list[int]:
        spawned = (pid for pid in self.left() if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes())
        return sorted(spawned)

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        for pid in self.left():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def test_workers_end_with_a_trainer_that_is_killed(tmp_path: Path, corpus: Path) -> None:
    """While they are being born, too."""
    trainer = Trainer(tmp_path, corpus, "at birth")
    try:
        assert trainer.process.wait(100) == -signal.SIGKILL
        wait_until(lambda: not trainer.left(), 90, "the workers' end")
    finally:
        trainer.end()


def test_a_worker_that_is_killed_makes_the_job_lost(tmp_path: Path, corpus: Path) -> None:
    trainer = Trainer(tmp_path, corpus, "in mid-epoch")
    try:
        wait_until(lambda: epoch_rows(trainer.run), 100, "an epoch")
        os.kill(trainer.workers()[0], signal.SIGKILL)
        assert trainer.process.wait(100) == 1
        assert "a loader's worker was killed" in (tmp_path / "log").read_text()
        assert not trainer.run.stage(1).failed.exists()
        wait_until(lambda: not trainer.left(), 90, "the other worker's end")
    finally:
        trainer.end()
