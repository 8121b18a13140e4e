"""A query over a collection, and what was found, as a page shows it."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from sia.atomic import write_text
from sia.gallery.clips import Clip, Picture, clip, picture
from sia.gallery.media import Shelf
from sia.gallery.of_run import Found
from sia.gallery.page import rendered
from sia.gallery.strip import attention_of
from sia.inference.search import Collection
from sia.inference.trained_pair import TrainedPair


@dataclass(frozen=True)
class Answer:
    """What lies nearest to a query in a collection of images, or of recordings."""

    query: Clip | Picture
    found: list[Found]
    of_images: bool
    searched: int


def answer_of(pair: TrainedPair, kind: str, collection: Collection, query: Path, name: str, top: int) -> Answer:
    """What is nearest to a query, a file of `speech` or `image` that is shown by a name.

    Raises UserError where it is unreadable.
    """
    shelf, of_images = Shelf(), kind == "speech"
    asked: Clip | Picture
    if of_images:
        frames = pair.frames(query)
        embedded = pair.embed_frames(frames)
        asked = clip(shelf, name, "", lambda: query, attention_of(pair, frames))
    else:
        embedded = pair.embed_image(query)
        asked = picture(shelf, name, "", lambda: query)
    show: Callable[..., Clip | Picture] = picture if of_images else clip
    rows = {name: row for row, name in enumerate(collection.names)}
    found = [
        Found(
            hit.rank,
            hit.similarity,
            False,
            show(shelf, hit.name, hit.text, partial(collection.original, rows[hit.name])),
        )
        for hit in collection.nearest(embedded, top)
    ]
    return Answer(asked, found, of_images, len(collection.names))


def write_contact_sheet(path: Path, answer: Answer, pair: str) -> Path:
    """One page that needs no network, nor any file beside it."""
    write_text(path, rendered("contact_sheet.html", answer=answer, pair=pair))
    return path
