"""Embed the captions and images of a prepared corpus, and measure recall over them."""

from collections.abc import Iterable, Mapping, Sequence
from math import ceil

import numpy as np
import torch
from torch import Tensor

from sia.checkpoint.chosen import Chosen
from sia.checkpoint.state import load_chosen
from sia.config import Data, Experiment
from sia.data.images import CUSTOMARY_MEAN, CUSTOMARY_STD, normalise
from sia.data.loader import image_batches, speech_batches
from sia.data.prepared_corpus import PreparedCorpus
from sia.distributed import Ranks
from sia.models.dual_encoder import DualEncoder
from sia.progress import tracked
from sia.recall import recall_report
from sia.run.folder import RunFolder


class Embedder:
    """Embeds captions and images in evaluation mode, the ranks sharing the work."""

    def __init__(
        self, model: DualEncoder, corpus: PreparedCorpus, data: Data, ranks: Ranks, batch_size: int, bf16: bool = False
    ) -> None:
        self.model, self.corpus, self.data, self.ranks = model, corpus, data, ranks
        self.batch_size, self.bf16 = batch_size, bf16
        self.mean, self.std = pixel_statistics(data, corpus, ranks.device)
        self.label = ""  # beside which a terminal shows how far it has come; in training it does not

    def speech(self, indices: Sequence[int]) -> Tensor:
        """Unit embeddings [N, D] of float32 of the captions, in their order."""
        # Captions of similar length together, so that little is padding.
        num_frames = self.corpus.captions.column("num_frames")[list(indices)]
        order = np.argsort(num_frames, kind="stable").tolist()
        own = order[self.ranks.rank :: self.ranks.world_size]
        device, spoken = self.ranks.device, [indices[place] for place in own]
        batches = speech_batches(self.corpus, spoken, self.batch_size, self.data.standardise_frames)
        return self._in_order(
            (self.model.speech(one.to(device), lengths) for one, lengths in batches), own, len(indices)
        )

    def images(self, indices: Sequence[int]) -> Tensor:
        """Unit embeddings [M, D] of float32 of the images of these captions, in their order."""
        own = list(range(len(indices)))[self.ranks.rank :: self.ranks.world_size]
        shown = [indices[place] for place in own]
        data, device = self.data, self.ranks.device
        batches = image_batches(self.corpus, shown, self.batch_size, data.crop_size, data.short_side)
        views = (normalise(one.to(device), self.mean, self.std) for one in batches)
        return self._in_order(map(self.model.image, views), own, len(indices))

    def _in_order(self, batches: Iterable[Tensor], places: list[int], count: int) -> Tensor:
        """What the ranks make of their batches, by their places among so many."""
        training = self.model.training
        self.model.eval()
        if self.label:
            batches = tracked(batches, self.label, ceil(len(places) / self.batch_size))
        with torch.inference_mode(), torch.autocast(self.ranks.device.type, torch.bfloat16, enabled=self.bf16):
            parts = [batch.float().cpu() for batch in batches]
        self.model.train(training)
        width = self.model.image.latent_size
        rows = self.ranks.gather(torch.cat([torch.empty(0, width), *parts]))
        ordered = torch.empty(count, width)
        ordered[self.ranks.gather(torch.tensor(places, dtype=torch.long))] = rows
        return ordered


def embedder_of(run: RunFolder, checkpoint: str, corpus: PreparedCorpus, ranks: Ranks) -> tuple[Chosen, Embedder]:
    """A run's checkpoint (best, last, epoch=N), and its pair, ready to embed a corpus.

    One rank chooses and reads the file for all: a file server that lags would mix two models. Raises UserError where
    there is none that fits the experiment.
    """
    experiment = run.experiment()
    model = DualEncoder.from_config(experiment.model).to(ranks.device)
    chosen = ranks.first_says(load_chosen(run, checkpoint, model, experiment.model) if ranks.is_first else None)
    ranks.share(model.state_dict().values())
    batch_size, bf16 = experiment.runtime.evaluation_batch_size, uses_bf16(experiment, ranks)
    return chosen, Embedder(model, corpus, experiment.data, ranks, batch_size, bf16)


def uses_bf16(experiment: Experiment, ranks: Ranks) -> bool:
    """Whether to compute in bf16: where asked to, or on a GPU that has it, not one that emulates it."""
    wanted = experiment.training.precision
    has_it = ranks.device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    return wanted == "bf16" or (wanted == "auto" and has_it)


def recalls(
    embedder: Embedder,
    queries: Mapping[str, Sequence[int]],
    pool: int | None = None,
    folds: int = 1,
    intervals: bool = False,
) -> dict[str, float]:
    """Recall of each named set of captions, measures named `<set>/speech_to_image/R_at_10` and so on.

    Each image is embedded once, however many sets choose among it. `pool`, `folds` and `intervals` are those of
    `sia.recall.recall_report`, which raises ValueError for pools that cannot be had.
    """
    corpus = embedder.corpus
    candidates = {name: corpus.image_pool(list(indices)) for name, indices in queries.items()}
    embedded = _distinct(corpus, [index for among in candidates.values() for index in among])
    images = embedder.images(embedded)
    report: dict[str, float] = {}
    for name, indices in queries.items():
        among = images[image_of_caption(corpus, candidates[name], embedded)]
        own_image = image_of_caption(corpus, indices, candidates[name])
        measures = recall_report(embedder.speech(indices), among, own_image, pool, folds, intervals)
        report |= {f"{name}/{measure}": value for measure, value in measures.items()}
    return report


def image_of_caption(corpus: PreparedCorpus, indices: Sequence[int], candidates: Sequence[int]) -> Tensor:
    """The place [N] of each caption's image among the candidates, which are a caption index for each image."""
    image = corpus.captions.column("image")
    place_of = np.full(len(image), -1)
    place_of[image[list(candidates)]] = np.arange(len(candidates))
    return torch.from_numpy(place_of[image[list(indices)]])


def fixed_sample(indices: Sequence[int], count: int, seed: int) -> list[int]:
    """The same `count` captions each time, in their order; all of them where there are no more."""
    if count >= len(indices):
        return list(indices)
    chosen = np.random.default_rng([seed, len(indices)]).choice(len(indices), count, replace=False)
    return [indices[place] for place in sorted(chosen)]


def pixel_statistics(data: Data, corpus: PreparedCorpus, device: torch.device) -> tuple[Tensor, Tensor]:
    """Mean and deviation [3] that images are normalised with: the customary ones or the training corpus's."""
    if data.normalisation == "corpus":
        mean, std = corpus.description.pixel_mean, corpus.description.pixel_std
    else:
        mean, std = CUSTOMARY_MEAN, CUSTOMARY_STD
    return torch.tensor(mean, device=device), torch.tensor(std, device=device)


def _distinct(corpus: PreparedCorpus, indices: Sequence[int]) -> list[int]:
    """The first of these captions for each image that they show, in their order."""
    _, first = np.unique(corpus.captions.column("image")[list(indices)], return_index=True)
    return [indices[place] for place in np.sort(first)]
