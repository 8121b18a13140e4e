"""The captions or images of a prepared corpus, embedded by a pair that may have been trained on another one."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from torch import Tensor

from sia.data.prepared_corpus import PreparedCorpus, check_features, check_inputs
from sia.distributed import Ranks
from sia.embedding import Embedder
from sia.inference.trained_pair import TrainedPair, full_precision

PIECE = 1024  # captions or images that are held in memory at a time


class PreparedPool:
    """A prepared corpus as `pair` sees it: with the statistics of the corpus that it was trained on.

    Raises UserError for a corpus whose frames or images were made in another way than those trained on.
    """

    def __init__(self, pair: TrainedPair, folder: Path, batch_size: int = 64) -> None:
        corpus = PreparedCorpus.open(folder)
        check_features(folder, corpus.description, pair.settings.features)
        check_inputs(folder, corpus.description, pair.settings.data, pair.settings.model)
        self.identity = corpus.identity
        self.corpus = corpus.normalised_as(pair.settings.corpus)
        ranks = Ranks(device=pair.device)
        self.embedder = Embedder(pair.network, self.corpus, pair.settings.data, ranks, batch_size)

    def speech(self, indices: Sequence[int]) -> Iterator[tuple[int, Tensor]]:
        """Where a piece begins, and its unit embeddings [n, D]: the captions of these indices, piece by piece."""
        for start in range(0, len(indices), PIECE):
            with full_precision():
                embedded = self.embedder.speech(indices[start : start + PIECE])
            yield start, embedded

    def images(self, indices: Sequence[int]) -> Iterator[tuple[int, Tensor]]:
        """The same of the images of these captions."""
        for start in range(0, len(indices), PIECE):
            with full_precision():
                embedded = self.embedder.images(indices[start : start + PIECE])
            yield start, embedded
