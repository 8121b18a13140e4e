"""The corpora of a sweep: the embedded one is made where it is missing, any other must be there."""

import sys
from itertools import pairwise
from pathlib import Path

from sia.cluster.corpus_jobs import prepare_corpus
from sia.cluster.launch import Launch
from sia.config import Experiment
from sia.data.prepared_corpus import (
    MissingCorpus,
    check_identity,
    check_inputs,
    check_splits,
    read_description,
)
from sia.data.sampler import check_batch_size, check_chunk_size
from sia.errors import UsageError
from sia.run.folder import RunFolder
from sia.run.records import TrainedOn

EMBEDDED = "scenes"


def embedded_raw() -> Path:
    """Where the scenes and their captions are made, once for every size they are prepared in."""
    return Path("corpora") / EMBEDDED / "raw"


def provide_corpora(experiments: list[Experiment], works_now: str = "") -> None:
    """See to it that each experiment's corpus is there.

    Raises UserError that names a missing one, the cure, and `works_now`, a command that does without it.
    """
    advice = f"\nwithout it, this works now: {works_now}" if works_now else ""
    for experiment in experiments:
        data = experiment.data
        # A folder that was named is somebody's own: it is not made here.
        if data.corpus == EMBEDDED and not data.folder and not (data.path / "corpus.json").exists():
            _make_embedded(experiment)
        try:
            read_description(data.path, data.corpus)
        except MissingCorpus as error:
            raise MissingCorpus(f"{error}, or say where it lies with --set data.folder=DIR{advice}") from None


def check_fit(run: RunFolder, experiment: Experiment, launch: Launch) -> None:
    """Raises UserError for what would fail in the job, perhaps days later: a batch, images or frames that do not fit, a
    split or a checkpoint that will not be there.
    """
    data = experiment.data
    description = read_description(data.path)
    num_captions = description.num_captions.get("train", 0)
    check_splits(data.path, description, experiment.training.select_on)
    check_start_from(experiment)
    check_batch_size(experiment.training.batch_size, num_captions, launch.profile.world_size)
    check_chunk_size(experiment.training.chunk_size, launch.profile.world_size)
    check_inputs(data.path, description, data, experiment.model)
    check_identity(data.path, description, TrainedOn.read(run.corpus), run.path)


def check_start_from(experiment: Experiment) -> None:
    """Raises UsageError for an epoch whose weights the stage before will not have, or perhaps not have, kept."""
    before, every = 0, experiment.runtime.keep_every_epochs
    for number, (stage, following) in enumerate(pairwise(experiment.stages), start=2):
        first, last = before + 1, before + stage.epochs
        if (following.start_from or "").startswith("epoch="):
            epoch = int(str(following.start_from).removeprefix("epoch="))
            kept = epoch == last or (every and epoch % every == 0)
            if not (first <= epoch <= last and kept):
                raise UsageError(
                    f"stages.{number}.start_from: epoch {epoch} is not kept; the stage before has epochs {first} to "
                    f"{last}, of which it keeps the last and every runtime.keep_every_epochs-th (now {every})"
                )
        before = last


def _make_embedded(experiment: Experiment) -> None:
    data = experiment.data
    print(f"making the embedded corpus in {data.path} (about a minute)", file=sys.stderr, flush=True)
    prepared = prepare_corpus(EMBEDDED, embedded_raw(), data.path, short_side=data.short_side)
    print(prepared.summary(), flush=True)
