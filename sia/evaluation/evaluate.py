"""Measure a run's checkpoint on a split of its corpus, or of another one, outside its training."""

from pathlib import Path
from typing import Any

from sia.config import Experiment
from sia.data.prepared_corpus import PreparedCorpus, check_features, check_identity, check_inputs
from sia.distributed import Ranks
from sia.embedding import embedder_of, fixed_sample, image_of_caption, recalls
from sia.errors import UserError
from sia.recall import image_pools
from sia.run.folder import RunFolder
from sia.run.records import TrainedOn


def evaluate_run(
    run: RunFolder,
    checkpoint: str,
    split: str,
    sample: int | None = None,
    *,
    pool: int | None = None,
    folds: int = 1,
    intervals: bool = False,
    corpus: Path | None = None,
    label: str = "",
) -> dict[str, Any]:
    """Recall of a checkpoint (best, last, epoch=N) over a split, or over `sample` fixed captions of it.

    `pool`, `folds` and `intervals` are those of `sia.recall.recall_report`; `corpus` is the folder of a prepared corpus
    in place of the run's own; `label` stands beside the progress that a terminal is shown, if any. Returns run, stage,
    epoch, the corpus's folder, selected_on, num_captions, num_images and
    pool_sizes of what was measured, num_candidates (images of the whole split), pool, folds, and `measures` (named as
    recall_report's).
    Raises UserError where checkpoint, corpus, split or pools are not there or do not fit.
    """
    experiment = run.experiment()
    prepared = _corpus_to_measure(run, experiment, corpus)
    indices = prepared.split(split)
    if sample is not None:
        indices = fixed_sample(indices, sample, experiment.training.seed)
    counts = _counts(prepared, indices, pool, folds)
    chosen, embedder = embedder_of(run, checkpoint, prepared, Ranks.alone())
    embedder.label = label
    measures = recalls(embedder, {split: indices}, pool, folds, intervals)
    return {
        **{"run": run.name, "stage": chosen.stage, "epoch": chosen.epoch, "corpus": str(prepared.folder)},
        **{"selected_on": experiment.training.select_on, **counts},
        "measures": {name.removeprefix(f"{split}/"): value for name, value in measures.items()},
    }


def _corpus_to_measure(run: RunFolder, experiment: Experiment, folder: Path | None) -> PreparedCorpus:
    corpus = PreparedCorpus.open(folder or experiment.data.path)
    check_inputs(corpus.folder, corpus.description, experiment.data, experiment.model)
    trained_on = TrainedOn.read(run.corpus)
    if folder is None:
        # Captions may have moved between its splits; a corpus that is named on purpose may be any.
        check_identity(corpus.folder, corpus.description, trained_on, run.path)
    if trained_on is None:
        return corpus
    check_features(corpus.folder, corpus.description, trained_on.features or corpus.description.features)
    return corpus.normalised_as(trained_on.description)


def _counts(corpus: PreparedCorpus, indices: list[int], pool: int | None, folds: int) -> dict[str, Any]:
    """What is measured, known before anything is embedded."""
    candidates = corpus.image_pool(indices)
    own_image = image_of_caption(corpus, indices, candidates)
    try:
        pools = image_pools(own_image, len(candidates), pool, folds)
    except ValueError as error:
        raise UserError(f"{corpus.folder}: {error}") from None
    sizes = [len(one) for one in pools]
    measured = sum(int(((own_image >= one.start) & (own_image < one.stop)).sum()) for one in pools)
    images = {"num_images": sum(sizes), "num_candidates": len(candidates)}
    return {"num_captions": measured, **images, "pool": max(sizes), "folds": len(pools), "pool_sizes": sizes}
