"""A query over a collection, and what was found, as a page shows it; and what a page offers to search by."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from sia.atomic import write_text
from sia.gallery.clips import Clip, Picture, clip, picture
from sia.gallery.finds import Found
from sia.gallery.media import Shelf
from sia.gallery.page import rendered
from sia.gallery.strip import attention_of
from sia.inference.search import EXAMPLES, Collection, Example
from sia.inference.trained_pair import TrainedPair
from sia.report.chance import chance
from sia.run.cost import EMBEDDED


@dataclass(frozen=True)
class Answer:
    """What lies nearest to a query in a collection of images, or of recordings."""

    query: Clip | Picture
    found: list[Found]
    of_images: bool
    searched: int


@dataclass(frozen=True)
class Offer:
    """A kind of query, how many of what it searches, what the pair reaches on test that way, and examples to try.

    measured: R@10, its chance, and among how many; None where the checkpoint was not measured. pictures: of examples
    that are images.
    """

    kind: str
    searched: int
    source: str
    measured: tuple[float, float, int] | None
    examples: list[Example]
    pictures: list[Picture]


def offers_of(pair: TrainedPair, collections: Mapping[str, Collection]) -> list[Offer]:
    """Of each kind; where the collection has no examples of its own, they are of the other one that is searched."""
    offers, shelf = [], Shelf()
    for kind, collection in collections.items():
        others = [other for name, other in collections.items() if name != kind]
        examples = collection.examples or [example for other in others for example in _of_its_own(other)]
        images = [picture(shelf, one.name, one.text, one.original) for one in examples if kind == "image"]
        offers.append(Offer(kind, len(collection.names), collection.source, _measured(pair, kind), examples, images))
    return offers


def is_of_embedded_corpus(pair: TrainedPair) -> bool:
    """Whether it has heard no voice but espeak's, and seen nothing but drawings."""
    return bool(pair.settings.corpus.get("name") == EMBEDDED)


def _of_its_own(collection: Collection) -> list[Example]:
    count = len(collection.names)
    rows = [count * place // EXAMPLES for place in range(min(EXAMPLES, count))]
    return [
        Example(collection.names[row], collection.texts[row], partial(collection.original, row), frozenset())
        for row in rows
    ]


def _measured(pair: TrainedPair, kind: str) -> tuple[float, float, int] | None:
    told = pair.settings.provenance
    if not told.get("test") or not told.get("test_pool"):
        return None
    captions, images = told["test_pool"]
    direction = "speech_to_image" if kind == "speech" else "image_to_speech"
    among = images if kind == "speech" else captions
    return told["test"][f"{direction}/R_at_10"], chance(captions, images)[direction], among


def answer_of(
    pair: TrainedPair,
    kind: str,
    collection: Collection,
    query: Path | bytes,
    top: int,
    name: str,
    text: str = "",
    right: frozenset[str] = frozenset(),
) -> Answer:
    """What is nearest to a query, `speech` or `image`, that is shown by a name and a text. right: what is framed.

    Raises UserError where it is unreadable.
    """
    shelf, of_images = Shelf(), kind == "speech"
    asked: Clip | Picture
    if isinstance(query, Path) and of_images:
        frames, path = pair.frames(query), query
        embedded = pair.embed_frames(frames)
        asked = clip(shelf, name, text, lambda: path, attention_of(pair, frames))
    else:
        embedded = pair.embed_image(query)
        asked = picture(shelf, name, text, lambda: query)
    show: Callable[..., Clip | Picture] = picture if of_images else clip
    rows = {name: row for row, name in enumerate(collection.names)}
    found = [
        Found(
            hit.rank,
            hit.similarity,
            hit.name in right,
            show(shelf, hit.name, hit.text, partial(collection.original, rows[hit.name])),
        )
        for hit in collection.nearest(embedded, top)
    ]
    return Answer(asked, found, of_images, len(collection.names))


def write_contact_sheet(path: Path, answer: Answer, pair: str) -> Path:
    """One page that needs no network, nor any file beside it."""
    write_text(path, rendered("contact_sheet.html", answer=answer, pair=pair))
    return path
