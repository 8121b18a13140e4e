"""The corpora of a sweep: the embedded one is made where it is missing, any other must be there."""

import sys
from collections.abc import Iterable
from functools import lru_cache
from itertools import pairwise
from pathlib import Path

from sia.cluster.corpus_jobs import prepare_corpus
from sia.cluster.launch import Launch
from sia.config import Data, Experiment
from sia.data.corpus_record import Description
from sia.data.prepared_corpus import (
    MissingCorpus,
    check_identity,
    check_inputs,
    check_splits,
    read_description,
)
from sia.data.sampler import check_batch_size, check_chunk_size
from sia.errors import UsageError
from sia.run.cost import EMBEDDED
from sia.run.folder import RunFolder
from sia.run.records import TrainedOn


def embedded_raw() -> Path:
    """Where the scenes and their captions are made, once for every size they are prepared in."""
    return Path("corpora") / EMBEDDED / "raw"


def is_to_be_made(data: Data) -> bool:
    """Whether it is the embedded corpus, which is not there yet."""
    # A folder that was named is somebody's own: it is not made here.
    return data.corpus == EMBEDDED and not data.folder and not (data.path / "corpus.json").exists()


def provide_corpora(experiments: Iterable[Experiment]) -> None:
    """See to it that each experiment's corpus is there. Raises UserError that names a missing one and the cure."""
    for experiment in experiments:
        data = experiment.data
        if is_to_be_made(data):
            print(f"making the embedded corpus in {data.path} (about a minute)", file=sys.stderr, flush=True)
            prepared = prepare_corpus(EMBEDDED, embedded_raw(), data.path, short_side=data.short_side)
            print(prepared.summary(), flush=True)
        check_is_there(data)


def check_is_there(data: Data, works_now: str = "") -> None:
    """Raises UserError that names a missing corpus, the cure, and `works_now`, a command that does without it."""
    try:
        _description(data, data.corpus)
    except MissingCorpus as error:
        advice = f"\nwithout it, this works now: {works_now}" if works_now else ""
        raise MissingCorpus(f"{error}, or say where it lies with --set data.folder=DIR{advice}") from None


def check_settings(experiment: Experiment, launch: Launch) -> None:
    """Raises UserError for what would fail in the job, whatever the corpus: a batch that its ranks cannot share, a
    checkpoint that will not be there.
    """
    training, ranks = experiment.training, launch.profile.world_size
    check_start_from(experiment)
    check_batch_size(training.batch_size, None, ranks)
    check_chunk_size(training.chunk_size, ranks)


def check_fit(run: RunFolder, experiment: Experiment, launch: Launch) -> None:
    """The same, and for a batch, images or frames that the corpus does not fit, and a split that it has not."""
    data = experiment.data
    description = _description(data)
    check_splits(data.path, description, experiment.training.select_on)
    check_settings(experiment, launch)
    num_captions = description.num_captions.get("train", 0)
    check_batch_size(experiment.training.batch_size, num_captions, launch.profile.world_size)
    check_inputs(data.path, description, data, experiment.model)
    check_identity(data.path, description, TrainedOn.read(run.corpus), run.path)


def _description(data: Data, corpus: str = "NAME") -> Description:
    record = data.path / "corpus.json"
    return _read_description(data.path, corpus, record.stat().st_mtime_ns if record.exists() else 0)


@lru_cache(maxsize=100)
def _read_description(folder: Path, corpus: str, mtime_ns: int) -> Description:
    """Of a file that has not changed since it was last read: a thousand runs of a grid ask for the same."""
    return read_description(folder, corpus)


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
