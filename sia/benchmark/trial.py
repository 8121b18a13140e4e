"""A trial beside its training: a study of tiny runs by the real command, with Ray Tune and without it."""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import yaml

from sia.benchmark.harness import Comparison, in_turn
from sia.benchmark.made_up_corpus import make_up
from sia.errors import UserError
from sia.run.folder import RunFolder
from sia.run.row_files import read_rows
from sia.trackers.tracker import tracker_of

COMMAND = Path(__file__).parents[2] / "jobs" / "submit.py"
SPLITS = ("train",) * 3 + ("validation", "test")
EXPERIMENT: dict[str, Any] = {
    "model": {"gru_layers": 1, "image": {"blocks": [1, 1], "growth_rate": 4, "initial_features": 4}},
    "data": {"corpus": "made up", "crop_size": 16, "short_side": 16, "bucket_size": 2},
    "training": {"batch_size": 4, "train_recall_sample": 4},
    "stages": [{"epochs": 2, "schedule": "calr"}],
    "runtime": {"num_workers": 0, "keep_every_epochs": 0},
}


@dataclass
class Study:
    """Runs, two at once, each time in a folder of its own; what the latest one came to."""

    folder: Path
    count: int
    scheduler: str
    turns: int = 0
    memory_mb: list[float] = field(default_factory=list)  # of the driver alone, its peak in each turn

    def __call__(self) -> None:
        """Raises UserError where the command fails."""
        self.turns += 1
        own = self.folder / f"{self.scheduler}-{self.turns}"
        own.mkdir()
        data = EXPERIMENT["data"] | {"folder": str(self.folder / "corpus")}
        widths = [4 * (1 + number) for number in range(self.count)]
        grid = {"experiment": EXPERIMENT | {"data": data}, "grid": {"model.latent_size": widths}}
        (own / "tiny.yaml").write_text(yaml.safe_dump(grid))
        (own / "two.yaml").write_text(yaml.safe_dump({"tasks_per_node": 2, "runs_per_node": 2}))
        command = [sys.executable, str(COMMAND), "--grid", "tiny.yaml", "--scheduler", self.scheduler]
        command += ["--cluster", "local", "--profile", "two.yaml"]
        store = tracker_of("tiny", f"sqlite:///{own}/store.db").environment()
        environment = {**os.environ, **store, "SIA_RUNS": str(own / "runs")}
        with open(own / "log", "w") as log:
            driver = subprocess.Popen(command, cwd=own, env=environment, stdout=log, stderr=log)
            peak = max(_peaks_mb(driver))
        if driver.returncode:
            raise UserError(f"the study failed:\n{(own / 'log').read_text()}")
        self.memory_mb.append(peak)

    def runs(self) -> list[RunFolder]:
        configs = (self.folder / f"{self.scheduler}-{self.turns}").glob("runs/tiny/*/config.yaml")
        return [RunFolder(config.parent) for config in configs]


def compare(count: int, turns: int) -> Comparison:
    """Seconds of the whole study; the facts are those of its latest turn with Tune."""
    with tempfile.TemporaryDirectory() as folder:
        make_up(Path(folder) / "corpus", 40, (20, 60), 16, SPLITS)
        ours, plain = (Study(Path(folder), count, scheduler) for scheduler in ("tune", "none"))
        compared = in_turn(f"{count} tiny runs, two at once", {"ours": lambda: ours, "no Tune": lambda: plain}, turns)
        return Comparison(compared.case, compared.seconds, facts=facts(compared, ours))


def facts(compared: Comparison, study: Study) -> dict[str, float]:
    """In seconds, but for the driver's memory. A job starts until its ranks have met; a gap is between two runs."""
    runs = study.runs()
    trained = sum(row.get("train/seconds", 0.0) for run in runs for row in read_rows(run.metrics))
    begun, met, ends = (
        [path.stat().st_mtime for path in files]
        for files in zip(*((run.stage(1).job, run.provenance, run.finished) for run in runs), strict=True)
    )
    starts = [later - earlier for earlier, later in zip(begun, met, strict=True)]
    gaps = [later - earlier for earlier, later in zip(sorted(ends), sorted(begun)[2:], strict=False)]
    beside = {side: (2 * median(taken) - trained) / len(runs) for side, taken in compared.seconds.items()}
    told = {f"a trial beside its training, {side}": seconds for side, seconds in beside.items()}
    told |= {"a job's start": median(starts), "from a run's end to the next": median(gaps or [0.0])}
    return {name: round(value, 2) for name, value in told.items()} | {"driver, MB": round(median(study.memory_mb))}


def _peaks_mb(process: "subprocess.Popen[bytes]") -> Iterator[float]:
    """Until the process ends."""
    while process.poll() is None:
        status = Path(f"/proc/{process.pid}/status").read_text()
        yield next((int(line.split()[1]) / 2**10 for line in status.splitlines() if line.startswith("VmHWM")), 0.0)
        time.sleep(0.1)


CASES = {"8": partial(compare, 8)}
