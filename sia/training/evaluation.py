"""Measure a run's checkpoint on a split, outside its training."""

from typing import Any

from sia.data.prepared import PreparedCorpus, check_short_side
from sia.distributed import Ranks
from sia.evaluate import Embedder, fixed_sample, recalls
from sia.models import DualEncoder
from sia.run_folder import RunFolder
from sia.training.checkpoint import load_weights
from sia.training.chosen_checkpoint import choose_checkpoint
from sia.training.fit import uses_bf16


def evaluate_run(run: RunFolder, checkpoint: str, split: str, sample: int | None = None) -> dict[str, Any]:
    """Recall of a checkpoint (best, last, epoch=N) over a split, or over `sample` fixed captions of it.

    Returns run, stage, epoch, num_captions, num_images and `measures` (named as recall_report's).
    Raises UserError where checkpoint, corpus or split are not there or do not fit.
    """
    chosen = choose_checkpoint(run, checkpoint)
    experiment = run.experiment()
    corpus = PreparedCorpus.open(experiment.data.path)
    check_short_side(corpus.folder, corpus.description, experiment.data)
    ranks = Ranks.alone()
    model = DualEncoder.from_config(experiment.model).to(ranks.device)
    load_weights(chosen.path, model, experiment.model)
    indices = corpus.split(split)
    if sample is not None:
        indices = fixed_sample(indices, sample, experiment.training.seed)
    embedder = Embedder(
        model, corpus, experiment.data, ranks, experiment.runtime.evaluation_batch_size, uses_bf16(experiment, ranks)
    )
    measures = recalls(embedder, {split: indices})
    return {
        "run": run.name,
        "stage": chosen.stage,
        "epoch": chosen.epoch,
        "num_captions": len(indices),
        "num_images": len(corpus.image_pool(indices)),
        "measures": {name.removeprefix(f"{split}/"): value for name, value in measures.items()},
    }
