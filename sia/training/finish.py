"""The end of a run: its best checkpoint measured on the test split, once."""

import platform
import time

import torch

from sia.atomic import read_json, write_json_lines
from sia.data.prepared import PreparedCorpus
from sia.distributed import Ranks
from sia.evaluate import Embedder, recalls
from sia.models import DualEncoder
from sia.run_folder import RunFolder, record
from sia.tracking.metrics_log import append_row, read_rows
from sia.training.checkpoint import load_weights
from sia.training.chosen_checkpoint import choose_checkpoint
from sia.training.fit import uses_bf16


def finish_run(run: RunFolder, ranks: Ranks) -> None:
    """Measure the best checkpoint over all stages on test, add the row to metrics.jsonl, then mark the run finished."""
    if run.finished.exists():
        return
    best = choose_checkpoint(run, "best")
    experiment = run.experiment()
    corpus = PreparedCorpus.open(experiment.data.path)
    model = DualEncoder.from_config(experiment.model).to(ranks.device)
    load_weights(best.path, model, experiment.model)
    embedder = Embedder(
        model, corpus, experiment.data, ranks, experiment.runtime.evaluation_batch_size, uses_bf16(experiment, ranks)
    )
    test = corpus.split("test")
    measures = recalls(embedder, {"test": test})
    if not ranks.is_first:
        return
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
        device=device_name(ranks.device),
    )


def device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"CPU {platform.processor() or platform.machine()}"
