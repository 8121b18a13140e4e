"""The end of a run: its best checkpoint measured on the test split, once."""

import platform
import time
from collections.abc import Callable
from pathlib import Path

import torch

from sia.data.prepared_corpus import PreparedCorpus
from sia.distributed import Ranks
from sia.embedding import embedder_of, recalls
from sia.run.folder import RunFolder
from sia.run.mended import rows_of
from sia.run.records import Finished, StageDone
from sia.run.row_files import write_rows


def finish_run(
    run: RunFolder, ranks: Ranks, corpus_folder: Path | None = None, confirm: Callable[[], None] = lambda: None
) -> None:
    """Measure the best checkpoint over all stages on test, add the row to metrics.jsonl, then mark the run finished.

    corpus_folder: a copy of the run's corpus to read instead. confirm: called before the writes; it does not return
    where another job has taken the run over. Of the intervals, those of R@10 are stored: what the report compares by.
    """
    if ranks.first_says(run.finished.exists()):
        return
    corpus = PreparedCorpus.open(corpus_folder or run.experiment().data.path)
    test = corpus.split("test")
    best, embedder = embedder_of(run, "best", corpus, ranks)
    measures = _kept(recalls(embedder, {"test": test}, intervals=True))
    if not ranks.is_first:
        return
    confirm()
    stages = [StageDone.read(run.stage(number).done) for number in range(1, len(run.planned_stages()) + 1)]
    finished = Finished(
        best_epoch=best.epoch,
        best_stage=best.stage,
        best_value=best.value,
        seconds=sum(stage.seconds for stage in stages if stage is not None),
        test={key.removeprefix("test/"): value for key, value in measures.items()},
        num_test_captions=len(test),
        num_test_images=len(corpus.image_pool(test)),
        world_size=ranks.world_size,
        batch_norm=run.experiment().training.batch_norm,
        device=device_name(ranks.device),
        num_stages=len(stages),
        time=time.time(),
    )
    # A row of a job that died right here is written anew.
    rows = [row for row in rows_of(run) if "stage_epoch" in row or row["stage"] != finished.num_stages]
    write_rows(run.metrics, [*rows, finished.row])
    finished.write(run.finished)


def _kept(measures: dict[str, float]) -> dict[str, float]:
    bounds = ("_low", "_high")
    return {name: value for name, value in measures.items() if "/R_at_10_" in name or not name.endswith(bounds)}


def device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"CPU {platform.machine()}"
