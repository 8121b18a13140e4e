"""What a trained pair finds in a split: its best, its median and its worst query of each direction, to see and hear."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from sia.data.prepared_corpus import check_identity
from sia.embedding import image_of_caption
from sia.gallery.choose import Chosen, Side, choose
from sia.gallery.clips import Clip, Picture, clip, picture
from sia.gallery.media import LIMIT_MB, Shelf
from sia.gallery.strip import Attention, attention_of
from sia.inference.load import load_run
from sia.inference.prepared import PreparedPool, recording_of
from sia.inference.trained_pair import TrainedPair
from sia.recall import ranks
from sia.run.folder import RunFolder
from sia.run.records import TrainedOn

Show = Callable[[int], Clip | Picture]


@dataclass(frozen=True)
class Found:
    """What was found at a rank: the image or the recording, and whether it belongs to the query."""

    rank: int
    similarity: float
    right: bool
    shown: Clip | Picture


@dataclass(frozen=True)
class Example:
    """A query and what is nearest to it; `which`, rank and margin are those of `sia.gallery.choose.Chosen`."""

    which: str
    rank: int
    margin: float
    query: Clip | Picture
    found: list[Found]


@dataclass(frozen=True)
class Gallery:
    """A run's examples of both directions, and what they were chosen among."""

    run: str
    checkpoint: str
    corpus: str
    split: str
    num_captions: int
    num_images: int
    latent_size: int
    speech_to_image: list[Example]
    image_to_speech: list[Example]


def gallery_of(run: RunFolder, checkpoint: str = "best", split: str = "test", limit_mb: float = LIMIT_MB) -> Gallery:
    """The gallery of a run's checkpoint (best, last, epoch=N) over a split of its corpus, with media of `limit_mb`.

    Raises UserError where the checkpoint or the corpus is not there, or is another one.
    """
    pair, folder = load_run(run, checkpoint), run.experiment().data.path
    pool = PreparedPool(pair, folder)
    check_identity(folder, pool.corpus.description, TrainedOn.read(run.corpus), run.path)
    pool.embedder.label = f"gallery of {run.name}"
    return _Room(pair, pool, split, Shelf(limit_mb)).gallery(run.name, checkpoint)


class _Room:
    """A split of a prepared corpus as a pair finds in it, and as a page shows it."""

    def __init__(self, pair: TrainedPair, pool: PreparedPool, split: str, shelf: Shelf) -> None:
        self.pair, self.corpus, self.split, self.shelf = pair, pool.corpus, split, shelf
        self.spoken = pool.corpus.split(split)  # a caption of each recording
        self.shown = pool.corpus.image_pool(self.spoken)  # and of each image
        owner = image_of_caption(self.corpus, self.spoken, self.shown)
        self.recordings = Side(_embedded(pool, self.spoken, False), owner)
        self.pictures = Side(_embedded(pool, self.shown, True), torch.arange(len(self.shown)))

    def gallery(self, run: str, checkpoint: str) -> Gallery:
        by_speech, by_image = self.choose()
        return Gallery(
            run=run,
            checkpoint=checkpoint,
            corpus=self.corpus.description.name,
            split=self.split,
            num_captions=len(self.spoken),
            num_images=len(self.shown),
            latent_size=self.pair.latent_size,
            speech_to_image=[self.example(one, self.query_clip, self.picture) for one in by_speech],
            image_to_speech=[self.example(one, self.picture, self.clip) for one in by_image],
        )

    def choose(self) -> tuple[list[Chosen], list[Chosen]]:
        """The recordings, and the images, that are shown as queries."""
        recordings, pictures = self.recordings, self.pictures
        ranked = ranks(recordings.embeddings, pictures.embeddings, recordings.labels)
        asked = recordings.labels.unique()  # an image without a caption is no query
        by_image = choose(Side(pictures.embeddings[asked], asked), recordings, ranked.of_captions)
        return choose(recordings, pictures, ranked.of_images), [
            one._replace(row=int(asked[one.row])) for one in by_image
        ]

    def example(self, chosen: Chosen, query: Show, candidate: Show) -> Example:
        asked = query(chosen.row)  # first, for where room is short
        found = [Found(one.rank, one.similarity, one.right, candidate(one.row)) for one in chosen.nearest]
        return Example(chosen.which, chosen.rank, chosen.margin, asked, found)

    def query_clip(self, row: int) -> Clip:
        frames = torch.from_numpy(self.corpus.frames(self.spoken[row]))
        return self.clip(row, attention_of(self.pair, frames))

    def clip(self, row: int, attention: Attention | None = None) -> Clip:
        caption, find = self.corpus.captions[self.spoken[row]], partial(recording_of, self.corpus, self.spoken[row])
        return clip(self.shelf, caption.utterance_id, caption.text, find, attention)

    def picture(self, row: int) -> Picture:
        caption = self.corpus.captions[self.shown[row]]
        return picture(self.shelf, caption.image_id, caption.text, partial(self.corpus.image, self.shown[row]))


def _embedded(pool: PreparedPool, indices: list[int], images: bool) -> Tensor:
    return torch.cat([piece for _, piece in pool.embedded(indices, images)])
