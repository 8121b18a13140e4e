"""Rehearse a grid: its real pairs, two steps each, one at a time, through the launcher of the real jobs."""

import shutil
import time
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console
from rich.table import Table

from sia.atomic import read_json
from sia.cluster.job import Place
from sia.cluster.queue import is_in_queue
from sia.cluster.rehearsal import Rehearsal, Rehearse, experiment_json, read_rehearsal
from sia.cluster.shard_array import prepare_corpus
from sia.cluster.submit import submit
from sia.config import Experiment
from sia.errors import UserError
from sia.run_folder import runs_root
from sia.sweep.corpora import EMBEDDED, embedded_raw
from sia.sweep.grid import Grid, GridPoint
from sia.sweep.launch import Launch

CAPTIONS = 256  # about four in five of them are of the training split


def rehearse(study: str, points: list[GridPoint], launches: dict[str, Launch]) -> Iterator[Rehearsal]:
    """Each point's measures, as they come. Raises UserError where a job ended without any."""
    limit = max(CAPTIONS, *(2 * point.experiment.training.batch_size for point in points))
    for point in points:
        side = point.experiment.data.short_side
        corpus = Path("corpora") / f"{EMBEDDED}-{side}-{limit}"
        prepare_corpus(EMBEDDED, embedded_raw(), corpus, short_side=side, limit=limit)
        folder = runs_root() / f"{study}-rehearsal" / point.experiment.run_name
        yield rehearse_one(point.experiment, corpus, folder, launches[point.run.name])


def rehearse_one(experiment: Experiment, corpus: Path, folder: Path, launch: Launch) -> Rehearsal:
    shutil.rmtree(folder, ignore_errors=True)
    task = Rehearse(str(folder), experiment_json(experiment, corpus, EMBEDDED), launch.profile.cpus_per_task)
    if launch.cluster == "debug":
        task.rehearse(Place())
    else:
        submit(task, launch.cluster, launch.profile, launch.code)
        _wait(task)
    result = read_rehearsal(folder)
    if result is None:
        raise UserError(
            f"{folder}: the rehearsal of {experiment.model.pair_name} ended early; see the logs in {task.jobs}"
        )
    return result


def _wait(task: Rehearse) -> None:
    while (job := read_json(task.job_record)) is not None and is_in_queue(job):
        time.sleep(1.0)


def rehearsal_table(results: list[Rehearsal]) -> Table:
    table = Table(title="rehearsal: two steps of each pair on the embedded corpus")
    for heading in ("pair", "largest batch that fits", "peak memory a rank, GB", "seconds a step", "ranks", "device"):
        table.add_column(heading, justify="right" if heading not in ("pair", "device") else "left")
    for result in results:
        table.add_row(
            result.pair,
            str(result.batch_size),
            f"{result.peak_memory_gb:.1f}",
            f"{result.seconds_a_step:.2f}",
            str(result.world_size),
            result.device,
        )
    return table


def show_rehearsal(grid: Grid, launches: dict[str, Launch], console: Console) -> None:
    """Rehearse every point, each as it comes, then the table of all."""
    results = []
    for result in rehearse(grid.study, grid.points, launches):
        print(f"{result.pair}: batch {result.batch_size}, {result.seconds_a_step:.2f} s a step", flush=True)
        results.append(result)
    console.print(rehearsal_table(results))
