"""What a grid would cost on 1, 8 and 64 ranks: by its rehearsal's steps, else by steps that are measured now."""

import multiprocessing
import tempfile
from pathlib import Path
from typing import Any

import torch

from sia.benchmark.made_up_corpus import make_up
from sia.config import Experiment
from sia.data.prepared_corpus import PreparedCorpus
from sia.distributed import Ranks
from sia.fitted_table import FittedTable
from sia.rehearsal.job import measure
from sia.run.cost import Pace, captions_of, checkpoint_gb, cost, exchanged_bytes, in_words, parameters, rehearsed
from sia.sweep.grid import GridPoint

RANKS = (1, 8, 64)
PLACES = {"train": 400_000, "validation": 1_000, "test": 1_000}  # stands in for a corpus that is not prepared
FRAMES = (200, 2000)  # of its captions, 2 to 20 s

Row = dict[str, Any]


def plan(points: list[GridPoint], bandwidth: float, steps: int, batch: int | None = None) -> list[Row]:
    """A row a point; what runs on ranks that cannot share the batch costs None. batch: captions of a measured step."""
    threads, known = torch.get_num_threads(), dict[str, Pace]()
    return [_row(point, _pace(point, steps, batch, threads, known), bandwidth) for point in points]


def _row(point: GridPoint, pace: Pace, bandwidth: float) -> Row:
    experiment, size = point.experiment, point.experiment.training.batch_size
    captions = captions_of(experiment)
    costs = {
        ranks: vars(cost(experiment, captions or PLACES, pace, ranks, bandwidth)) if size % ranks == 0 else None
        for ranks in RANKS
    }
    return {
        "run": point.run.name,
        "captions": captions or PLACES,
        "corpus_prepared": captions is not None,
        "step": vars(pace),
        "parameters": parameters(experiment),
        "exchanged_mb": {ranks: exchanged_bytes(experiment, size, ranks) / 1e6 for ranks in RANKS},
        "unit": pace.unit,
        "costs": costs,
        "checkpoint_gb": checkpoint_gb(experiment),
    }


def _pace(point: GridPoint, steps: int, batch: int | None, threads: int, known: dict[str, Pace]) -> Pace:
    if (pace := rehearsed(point.study, point.experiment, threads)) is not None:
        return pace
    experiment = point.experiment
    if batch is not None:
        training = experiment.training.model_copy(update={"batch_size": min(batch, experiment.training.batch_size)})
        experiment = experiment.model_copy(update={"training": training})
    alike = experiment.model_copy(update={"training": experiment.training.model_copy(update={"seed": 0})})
    key = alike.model_dump_json(include={"model", "data", "loss", "training"})
    if key not in known:
        # A process of its own: the memory that the pair before took tells nothing of this one.
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            known[key] = pool.apply(_measured, (experiment, steps, threads))
    return known[key]


def _measured(experiment: Experiment, steps: int, threads: int) -> Pace:
    torch.set_num_threads(threads)
    with tempfile.TemporaryDirectory() as folder:
        if captions_of(experiment) is None:
            corpus = make_up(Path(folder), 4 * experiment.training.batch_size, FRAMES, experiment.data.short_side)
        else:
            corpus = PreparedCorpus.open(experiment.data.path)
        found = measure(experiment, corpus, Ranks.alone(), steps)
    return Pace(found.seconds_a_step, found.batch_size, found.world_size, found.device, threads)


def _told(one: dict[str, float] | None) -> str:
    return f"{in_words(one['hours'])}, {one['device_hours']:,.3g}" if one else "-"


def table_of(rows: list[Row], bandwidth: float) -> FittedTable:
    told = [
        {
            "run": row["run"],
            "measured step": f"{row['step']['seconds']:,.3g} s of {row['step']['captions']}",
            **{f"{ranks} rank{'s' * (ranks > 1)}": _told(one) for ranks, one in row["costs"].items()},
            "checkpoints": f"{row['checkpoint_gb']:,.2f} GB",
        }
        for row in rows
    ]
    title = f"at {bandwidth:g} GB/s between ranks"
    table = FittedTable(told, ("measured step", "checkpoints", "8 ranks"), [title], right=list(told[0])[1:])
    units, devices = ({row["unit"] for row in rows}, {row["step"]["device"] for row in rows})
    table.caption = f"time, {' or '.join(units)} ({', '.join(devices)})" + (
        "" if all(row["corpus_prepared"] for row in rows) else f"; corpora not prepared taken as Places: {PLACES}"
    )
    return table
