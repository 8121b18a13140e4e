"""How the cost of what is done for many grows with their number: 1, 2, 4 and 8 times the work, and the exponent."""

import gc
import io
import itertools
import math
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
from rich.console import Console

from sia.benchmark.harness import Action, Comparison, in_turn
from sia.benchmark.made_up_corpus import make_up
from sia.benchmark.made_up_runs import make_up_study
from sia.cluster.profile import Profile
from sia.data.prepared_corpus import PreparedCorpus
from sia.data.sampler import BucketBatchSampler
from sia.operate.status import study_views
from sia.operate.track import track
from sia.operate.watch import print_studies
from sia.report.write import write_report
from sia.run import folder as run_folder
from sia.run import latest
from sia.sweep.grid import load_grid
from sia.sweep.plan_table import plan_table

TIMES = (1, 2, 4, 8)
EPOCHS = 20  # of each run


def compare(what: str, least: int, make: Callable[[int, Path], Action], turns: int) -> Comparison:
    """CPU seconds of each size; the exponent over all sizes, and that of the last doubling."""
    gc.freeze()  # no command looks through all that is loaded here for garbage
    with _own_runs() as folder:
        sides = {f"{least * times:,} {what}": partial(make, least * times, folder) for times in TIMES}
        compared = in_turn(f"{what}, CPU time", sides, turns, clock=time.process_time)
    medians = [statistics.median(taken) for taken in compared.seconds.values()]
    slope = np.polyfit(np.log(TIMES), np.log(medians), 1)[0]
    facts = {"exponent": round(float(slope), 2), "of the last doubling": round(math.log2(medians[-1] / medians[-2]), 2)}
    compared.facts.update(facts)
    return compared


def whole_study(turns: int) -> Comparison:
    """A large study into the tracker's store: by the clock, its CPU time, and what the store takes on disk."""
    cpu = []
    with _own_runs() as folder:
        fill = mirror(200, folder, 100)

        def timed() -> None:
            began = time.process_time()
            fill()
            cpu.append(time.process_time() - began)

        compared = in_turn("200 runs of 100 epochs mirrored", {"ours": lambda: timed}, turns)
        held = [path for path in (folder / "tracker").rglob("*") if path.is_file()]
        compared.facts["CPU seconds"] = round(statistics.median(cpu[1:]), 1)
        compared.facts["MB on disk"] = round(sum(path.stat().st_size for path in held) / 1e6 / (turns + 1), 1)
    return compared


@contextmanager
def _own_runs() -> Iterator[Path]:
    """A folder that goes again, with an empty folder of studies in it that is this process's meanwhile."""
    with tempfile.TemporaryDirectory() as name, patch.dict(os.environ, SIA_RUNS=f"{name}/runs"):
        yield Path(name)


def opening(count: int, folder: Path) -> Action:
    corpus = folder / str(count)
    make_up(corpus, count, (4, 8), 8)
    return lambda: PreparedCorpus.open(corpus).split("train")


def shuffling(count: int, folder: Path) -> Action:
    lengths = np.random.default_rng(0).integers(200, 2000, count).tolist()
    return lambda: BucketBatchSampler(lengths, 64, seed=0).global_batches(0)


def planning(count: int, folder: Path) -> Action:
    path = folder / f"{count}.yaml"
    path.write_text(f"seeds: {list(range(count))}\n")

    def show() -> None:
        points = load_grid(path).points
        Console(file=io.StringIO()).print(plan_table("study", points, [Profile()] * count))

    return show


def status(count: int, folder: Path) -> Action:
    study = _study(count)

    def show() -> None:
        run_folder._read_experiment.cache_clear()
        latest._measured.cache_clear()
        print_studies(study_views([study]), Console(file=io.StringIO()))

    return show


def report(count: int, folder: Path) -> Action:
    study = _study(count)

    def write() -> None:
        run_folder._read_experiment.cache_clear()
        write_report(study)

    return write


def mirror(count: int, folder: Path, epochs: int = EPOCHS) -> Action:
    """Each turn into a store that has nothing of the study, a copy of one that was made before: making it is no part
    of this.
    """
    study, number, empty = _study(count, epochs), itertools.count(), folder / "empty" / "tracker.db"
    make_up_study(run_folder.runs_root() / "first", 1, 1)
    _quietly(track, "first", f"sqlite:///{empty}")

    def fill() -> None:
        database = folder / "tracker" / f"{count}-{next(number)}" / "tracker.db"
        database.parent.mkdir(parents=True)
        shutil.copy(empty, database)
        _quietly(track, study, f"sqlite:///{database}")

    return fill


def _quietly(do: Callable[..., Any], *given: str) -> None:
    with redirect_stdout(io.StringIO()):
        do(*given)


def _study(count: int, epochs: int = EPOCHS) -> str:
    make_up_study(run_folder.runs_root() / f"study-{count}", count, epochs)
    return f"study-{count}"


CASES = {
    "open": partial(compare, "captions opened", 1000, opening),
    "shuffle": partial(compare, "captions shuffled", 50_000, shuffling),
    "plan": partial(compare, "grid points planned", 125, planning),
    "status": partial(compare, "runs listed", 125, status),
    "mirror-200": whole_study,
    "mirror": partial(compare, "runs mirrored", 5, mirror),
    "report": partial(compare, "runs reported", 25, report),
}
