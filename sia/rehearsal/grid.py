"""Rehearse a grid: its real pairs, two steps each, one at a time, through the launcher of the real jobs."""

import shutil
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console
from rich.table import Table

from sia.cluster.corpus_jobs import prepare_corpus
from sia.cluster.end_jobs import cancel_jobs, has_left
from sia.cluster.launch import Launch
from sia.cluster.stage_job import Place
from sia.cluster.submit import submit
from sia.config import Experiment
from sia.errors import UserError
from sia.rehearsal.job import Rehearsal, Rehearse
from sia.run.folder import REHEARSAL, runs_root
from sia.run.queue import QUEUE, is_in_queue
from sia.run.records import Job, Stopped
from sia.sweep.corpora import EMBEDDED, embedded_raw
from sia.sweep.grid import Grid, GridPoint

CAPTIONS = 256  # about four in five of them are of the training split
WAIT_SECONDS = 60.0
SUBMISSION_SECONDS = 10.0  # until a job that is being submitted is written down; it ends by itself after that
HEADINGS = ("pair", "largest batch that fits", "peak memory a rank, GB", "seconds a step", "ranks", "device")


def show_rehearsal(grid: Grid, launches: dict[str, Launch], console: Console) -> None:
    """Rehearse every point, each told as it comes, then the table of all. A hang-up ends it as SIGTERM does."""
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # as under nohup
        signal.signal(signal.SIGHUP, signal.getsignal(signal.SIGTERM))
    table = Table(title="rehearsal: two steps of each pair on the embedded corpus")
    for heading in HEADINGS:
        table.add_column(heading, justify="right" if heading not in ("pair", "device") else "left")
    for told in rehearse(grid.study, grid.points, launches):
        print(f"{told.pair}: batch {told.batch_size}, {told.seconds_a_step:.2f} s a step", flush=True)
        numbers = (f"{told.peak_memory_gb:.1f}", f"{told.seconds_a_step:.2f}", str(told.world_size))
        table.add_row(told.pair, str(told.batch_size), *numbers, told.device)
    console.print(table)


def rehearse(study: str, points: list[GridPoint], launches: dict[str, Launch]) -> Iterator[Rehearsal]:
    """Each point's measures, as they come. Raises UserError where a job ended without any."""
    limit = max(CAPTIONS, *(2 * point.experiment.training.batch_size for point in points))
    for point in points:
        side = point.experiment.data.short_side
        corpus = Path("corpora") / f"{EMBEDDED}-{side}-{limit}"
        prepare_corpus(EMBEDDED, embedded_raw(), corpus, short_side=side, limit=limit)
        folder = runs_root() / f"{study}{REHEARSAL}" / point.experiment.run_name
        yield rehearse_one(point.experiment, corpus, folder, launches[point.run.name])


def rehearse_one(experiment: Experiment, corpus: Path, folder: Path, launch: Launch) -> Rehearsal:
    """Whoever leaves early, by a Ctrl-C, a SIGTERM or an error, ends the job first: no other command knows of it."""
    shutil.rmtree(folder, ignore_errors=True)
    values = experiment.model_dump(mode="json")
    values["data"] |= {"corpus": EMBEDDED, "folder": str(corpus.absolute())}
    task = Rehearse(str(folder), values, launch.profile.cpus_per_task)
    if launch.cluster == "debug":
        task.rehearse(Place())
    else:
        try:
            submit(task, launch.cluster, launch.profile.of_run(), launch.code)
            while (job := Job.read(task.job_record)) is not None and is_in_queue(job):
                time.sleep(1.0)
        except BaseException:
            # A job that the cluster takes at this moment finds the marker.
            Stopped(by="rehearse").write(task.stopped)
            print("the rehearsal is left: ending its job", file=sys.stderr, flush=True)
            _end(task)
            raise
    result = task.result()
    if result is None:
        raise UserError(
            f"{folder}: the rehearsal of {experiment.model.pair_name} ended early; see the logs in {task.jobs}"
        )
    return result


def _end(task: Rehearse) -> None:
    began, untold, job = time.monotonic(), {}, None
    while time.monotonic() - began < (WAIT_SECONDS if job else SUBMISSION_SECONDS):
        job = Job.read(task.job_record)
        if job is not None and has_left(job):
            return
        # More than once: a process that has just begun does not hear it.
        untold = cancel_jobs([job]) if job else {}
        time.sleep(0.5)
        QUEUE.forget()
    if job is not None:
        why = "; ".join(untold.values()) or f"it has not ended within {WAIT_SECONDS:.0f} s"
        print(f"{job.cluster} job {job.job_id} is left: {why}", file=sys.stderr)
