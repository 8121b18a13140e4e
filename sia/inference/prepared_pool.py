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

    def embedded(self, indices: Sequence[int], images: bool) -> Iterator[tuple[int, Tensor]]:
        """Where a piece begins, and its unit embeddings [n, D]: of these captions, or of their images."""
        embed = self.embedder.images if images else self.embedder.speech
        for start in range(0, len(indices), PIECE):
            with full_precision():
                piece = embed(indices[start : start + PIECE])
            yield start, piece
