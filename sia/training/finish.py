"""The end of a run: its best checkpoint measured on the test split, once."""

import platform
import time
from collections.abc import Callable
from pathlib import Path

import torch

from sia.atomic import read_json, write_json_lines
from sia.data.prepared import PreparedCorpus
from sia.distributed import Ranks
from sia.evaluate import recalls
from sia.run_folder import RunFolder, record
from sia.tracking.metrics_log import append_row, read_rows
from sia.training.chosen_checkpoint import choose_checkpoint
from sia.training.evaluate_run import embedder_of


def finish_run(
    run: RunFolder, ranks: Ranks, corpus_folder: Path | None = None, confirm: Callable[[], None] = lambda: None
) -> None:
    """Measure the best checkpoint over all stages on test, add the row to metrics.jsonl, then mark the run finished.

    corpus_folder: a copy of the run's corpus to read instead. confirm: called before the writes; it does not return
    where another job has taken the run over. Of the intervals, those of R@10 are stored: what the report compares by.
    """
    if run.finished.exists():
        return
    best = choose_checkpoint(run, "best")
    experiment = run.experiment()
    corpus = PreparedCorpus.open(corpus_folder or experiment.data.path)
    test = corpus.split("test")
    embedder = embedder_of(best.path, experiment, corpus, ranks)
    measures = _kept(recalls(embedder, {"test": test}, intervals=True))
    if not ranks.is_first:
        return
    confirm()
    last = len(run.planned_stages())
    # A job that died right here has left this row already.
    rows = [row for row in read_rows(run.metrics) if not (row["stage"] == last and "stage_epoch" not in row)]
    write_json_lines(run.metrics, rows)
    append_row(run.metrics, {"stage": last, "epoch": best.epoch, "time": time.time(), **measures})
    record(
        run.finished,
        best_epoch=best.epoch,
        best_stage=best.stage,
        best_value=best.value,
        seconds=sum((read_json(run.stage(number).done) or {})["seconds"] for number in range(1, last + 1)),
        test={key.removeprefix("test/"): value for key, value in measures.items()},
        num_test_captions=len(test),
        num_test_images=len(corpus.image_pool(test)),
        world_size=ranks.world_size,
        batch_norm=experiment.training.batch_norm,
        device=device_name(ranks.device),
    )


def _kept(measures: dict[str, float]) -> dict[str, float]:
    bounds = ("_low", "_high")
    return {name: value for name, value in measures.items() if "/R_at_10_" in name or not name.endswith(bounds)}


def device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"CPU {platform.processor() or platform.machine()}"
