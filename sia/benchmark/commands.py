"""How long a person waits for a command, its interpreter and imports included."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

from sia.benchmark.harness import Action, Comparison, in_turn
from sia.benchmark.made_up_corpus import make_up
from sia.benchmark.made_up_runs import make_up_study
from sia.data.manifest import SPLITS

JOBS = Path(__file__).resolve().parents[2] / "jobs"
EPOCHS = 120
POINTS = """\
grid:
  model.gru_layers: [2, 3, 4, 5]
  model.latent_size: [256, 512, 1024, 2048, 4096]
  optimizer.learning_rate: [1.0e-4, 2.0e-4, 3.0e-4, 4.0e-4, 5.0e-4]
  loss.margin: [0.1, 0.2]
seeds: [0, 1, 2, 3, 4]
"""


def compare(case: str, arguments: str, prepare: Callable[[Path], None], turns: int) -> Comparison:
    """Seconds of the command, beside those of an interpreter that does nothing, and the command's CPU time."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prepare(folder)
        command = [str(JOBS / arguments.split()[0]), *arguments.split()[1:]]
        began = os.times()
        sides = {"ours": partial(_running, command, folder), "an empty program": partial(_running, ["-c", ""], folder)}
        compared = in_turn(case, sides, turns)
        ended = os.times()
    cpu = ended.children_user + ended.children_system - began.children_user - began.children_system
    compared.facts["CPU seconds of both together"] = round(cpu / (turns + 1), 2)
    return compared


def _running(command: list[str], folder: Path) -> Action:
    environment = {**os.environ, "SIA_RUNS": str(folder / "runs"), "PYTHONPATH": str(JOBS.parent)}
    run = partial(subprocess.run, [sys.executable, *command], cwd=folder, env=environment, stdout=subprocess.DEVNULL)
    return partial(run, check=True)


def _grid(folder: Path) -> None:
    (folder / "grid.yaml").write_text(POINTS)
    make_up(folder / "corpora" / "places205", 3 * 64, (10, 20), 256, SPLITS)


def _study(num_runs: int, folder: Path) -> None:
    make_up_study(folder / "runs" / "study", num_runs, EPOCHS)


CASES = {
    "help": partial(compare, "submit.py --help", "submit.py --help", _grid),
    "dry-run": partial(
        compare, "dry-run of 1,000 points", "submit.py --grid grid.yaml --dry-run --cluster local", _grid
    ),
    "status": partial(compare, "status of 1,000 runs", "status.py study", partial(_study, 1000)),
    "report": partial(compare, "report of 200 runs", "report.py study --no-gallery", partial(_study, 200)),
}
