"""Rehearse a grid: its real pairs, two steps each, one at a time, through the launcher of the real jobs.

A rehearsal is a study beside the grid's own, `size.rehearsal`: status, logs, cancel and clean know it as any other.
"""

import shutil
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console

from sia.cluster.corpus_jobs import prepare_corpus
from sia.cluster.end_jobs import cancel_jobs, has_left
from sia.cluster.launch import Launch
from sia.cluster.stage_job import Place
from sia.cluster.submit import submit
from sia.errors import UserError
from sia.fitted_table import FittedTable
from sia.progress import Tell, waiting
from sia.rehearsal.job import Rehearsal, Rehearse
from sia.run.cost import EMBEDDED, rehearsal_of
from sia.run.driver import driving
from sia.run.folder import REHEARSAL, RunFolder, run_of
from sia.run.lock import living_holder
from sia.run.queue import QUEUE
from sia.run.records import Failed, Job, Stopped
from sia.run.state import RunStatus, State, look
from sia.run.steps import latest_step
from sia.sweep.corpora import embedded_raw
from sia.sweep.grid import Grid

CAPTIONS = 256  # about four in five of them are of the training split
WAIT_SECONDS = 60.0
SUBMISSION_SECONDS = 3.0  # until the process that submits a job, if there is one, holds its lock
POLL_SECONDS = 0.5
UNDER_WAY = (State.RUNNING, State.PENDING)
LEFT_OUT = ("device", "ranks")  # on a narrow terminal


def show_rehearsal(grid: Grid, launches: dict[str, Launch], console: Console) -> None:
    """Rehearse every point, each told as it comes, then the table of all. A hang-up ends it as SIGTERM does."""
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # as under nohup
        signal.signal(signal.SIGHUP, signal.getsignal(signal.SIGTERM))
    told = []
    for one in rehearse(grid, launches):
        print(f"{one.pair}: batch {one.batch_size}, {one.seconds_a_step:.2f} s a step", flush=True)
        told.append(one)
    console.print(rehearsal_table(told))


def rehearsal_table(told: list[Rehearsal]) -> FittedTable:
    rows = [
        {
            "pair": one.pair,
            "largest batch\nthat fits": str(one.batch_size),
            "peak memory\na rank, GB": f"{one.peak_memory_gb:.1f}",
            "seconds\na step": f"{one.seconds_a_step:.2f}",
            "ranks": str(one.world_size),
            "device": one.device,
        }
        for one in told
    ]
    title = "rehearsal: two steps of each pair on the embedded corpus"
    return FittedTable(rows, LEFT_OUT, [title, "rehearsal"], right=tuple(rows[0])[1:5])


def rehearse(grid: Grid, launches: dict[str, Launch]) -> Iterator[Rehearsal]:
    """Each point's measures, as they come; points that train the same steps are rehearsed once.

    Raises UserError where a job ended without any, or where another process rehearses the grid.
    """
    study, limit = (
        f"{grid.study}{REHEARSAL}",
        max(CAPTIONS, *(2 * one.experiment.training.batch_size for one in grid.points)),
    )
    runs: dict[RunFolder, Launch] = {}
    with driving(study):
        for point in grid.points:
            corpus = Path("corpora") / f"{EMBEDDED}-{point.experiment.data.short_side}-{limit}"
            rehearsed = rehearsal_of(point.experiment, corpus)
            run = run_of(study, rehearsed)
            if run not in runs:
                _make_way(run)
                run.create(rehearsed)
            runs.setdefault(run, launches[point.run.name])
        for number, (run, launch) in enumerate(runs.items(), start=1):
            data = run.experiment().data
            prepare_corpus(EMBEDDED, embedded_raw(), data.path, short_side=data.short_side, limit=limit)
            with waiting(f"pair {number} of {len(runs)}, {run.experiment().model.pair_name}") as tell:
                found = rehearse_one(run, launch, tell)
            yield found


def _make_way(run: RunFolder) -> None:
    """Raises UserError where a former rehearsal's job, whose command was killed, still has the run."""
    if run.config.exists() and look(run).state in UNDER_WAY:
        raise UserError(f"{run.path}: a job rehearses it already; python jobs/cancel.py {run.study} ends it")
    shutil.rmtree(run.path, ignore_errors=True)


def rehearse_one(run: RunFolder, launch: Launch, tell: Tell = lambda text: None) -> Rehearsal:
    """Whoever leaves early, by a Ctrl-C, a SIGTERM or an error, ends the job first."""
    task = Rehearse(str(run.path), launch.profile.cpus_per_task)
    if launch.cluster == "debug":
        task.rehearse(Place())
    else:
        try:
            submit(task, launch.cluster, launch.profile.of_run(), launch.code)
            while (status := look(run)).state in UNDER_WAY:
                tell(_how_far(run, status))
                time.sleep(POLL_SECONDS)
        except BaseException:
            _end(run)
            raise
    if (result := task.result()) is None:
        failed = Failed.read(run.stage(1).failed)
        why = failed.error if failed else "its job ended without a word"
        pair = run.experiment().model.pair_name
        raise UserError(f"{pair} was not rehearsed: {why}; python jobs/logs.py {run.study}/{run.name}")
    return result


def _how_far(run: RunFolder, status: RunStatus) -> str:
    if (step := latest_step(run, 0)) is not None:
        return f"step {step.batch} of {step.batches}, {step.peak_memory_gb:.1f} GB"
    if status.state == State.RUNNING:
        return "its first step"
    return f"{status.cluster} job {status.job_id} {status.reason or 'waits'}"


def _end(run: RunFolder) -> None:
    """Another Ctrl-C meanwhile is not heard: it would leave the job to itself."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        Stopped(by="rehearse", time=time.time()).write(run.stopped)
        print("the rehearsal is left: ending its job", file=sys.stderr, flush=True)
        _end_job(run)
    finally:
        signal.signal(signal.SIGINT, before)


def _end_job(run: RunFolder) -> None:
    """A job that the cluster takes later than this waits, or that begins later, finds the marker."""
    began, untold, job = time.monotonic(), {}, None
    while (waited := time.monotonic() - began) < WAIT_SECONDS:
        job = Job.read(run.stage(1).job)
        if has_left(job) if job else waited > SUBMISSION_SECONDS and living_holder(run.submission) is None:
            return
        # More than once: a process that has just begun does not hear it.
        untold = cancel_jobs([job]) if job else {}
        time.sleep(POLL_SECONDS)
        QUEUE.forget()
    if job is not None:
        why = "; ".join(untold.values()) or f"it has not ended within {WAIT_SECONDS:.0f} s"
        print(f"{job.cluster} job {job.job_id} is left: {why}", file=sys.stderr)
