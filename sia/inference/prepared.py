"""A prepared corpus as a pair embeds it, which may have been trained on another one; and the recordings that it is of.

A prepared corpus holds frames alone: its recordings lie where they were when it was prepared.
"""

from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

import soundfile
from torch import Tensor

from sia.data import hdf5_path
from sia.data.manifest import read_captions
from sia.data.prepare import plan_path
from sia.data.prepared_corpus import PreparedCorpus, check_features, check_inputs
from sia.distributed import Ranks
from sia.embedding import Embedder
from sia.errors import UserError
from sia.inference.trained_pair import TrainedPair, full_precision

PIECE, BATCH_SIZE = 1024, 64  # captions or images that are held in memory at a time, and embedded at once


class PreparedPool:
    """A prepared corpus as `pair` sees it: with the statistics of the corpus that it was trained on.

    Raises UserError for a corpus whose frames or images were made in another way than those trained on.
    """

    def __init__(self, pair: TrainedPair, folder: Path) -> None:
        corpus = PreparedCorpus.open(folder)
        check_features(folder, corpus.description, pair.settings.features)
        check_inputs(folder, corpus.description, pair.settings.data, pair.settings.model)
        self.identity = corpus.identity
        self.corpus = corpus.normalised_as(pair.settings.corpus)
        ranks = Ranks(device=pair.device)
        self.embedder = Embedder(pair.network, self.corpus, pair.settings.data, ranks, BATCH_SIZE)

    def embedded(self, indices: Sequence[int], images: bool) -> Iterator[tuple[int, Tensor]]:
        """Where a piece begins, and its unit embeddings [n, D]: of these captions, or of their images."""
        embed = self.embedder.images if images else self.embedder.speech
        for start in range(0, len(indices), PIECE):
            with full_precision():
                piece = embed(indices[start : start + PIECE])
            yield start, piece


def recording_of(corpus: PreparedCorpus, index: int) -> Path:
    """Where a caption's recording lay as the corpus was prepared, or lies since the corpus was moved with it.

    Raises UserError where it cannot be had or read, or where another one, of another length, has taken its place.
    """
    name, numbers = corpus.captions.utterance_id(index), corpus.captions.numbers(index)
    plan = plan_path(corpus.folder, numbers.shard)
    told = (_recordings(plan) if plan.is_file() else {}).get(name)
    if told is None:
        raise UserError(f"{plan}: tells nothing of the recording of {name!r}")
    path = _moved_with(corpus.folder, Path(told))
    if not path.is_file():
        inside = " (it was given as features, not as a recording)" if hdf5_path.parse(told) else ""
        raise UserError(f"{path}: no such file any more{inside}")
    try:
        seconds = soundfile.info(path).duration
    except (soundfile.SoundFileError, OSError):
        raise UserError(f"{path}: no recording that can be read any more") from None
    features = corpus.description.features
    hop = features["hop_length"] / features["sample_rate"] if features["kind"] == "mfcc" else None
    if hop and abs(seconds / hop - numbers.num_frames) > 2:
        raise UserError(f"{path}: no longer the recording that was prepared")
    return path


def _moved_with(folder: Path, path: Path) -> Path:
    """The file itself, or the one of the same place within a corpus's folder that has been moved or copied."""
    ends = [] if path.is_file() else [Path(*path.parts[start:]) for start in range(1, len(path.parts))]
    return next((folder / end for end in ends if (folder / end).is_file()), path)


@cache
def _recordings(plan: Path) -> dict[str, str]:
    return {caption.utterance_id: caption.speech_path for caption in read_captions(plan)}
