"""Which images or recordings lie nearest to a query: of a folder, or of a prepared corpus."""

import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from sia.data.prepared_corpus import PreparedCorpus
from sia.errors import UsageError, UserError
from sia.inference.prepared import PreparedPool, recording_of
from sia.inference.trained_pair import BATCH_SIZE, TrainedPair
from sia.progress import tracked

IMAGE_ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm")
SPEECH_ENDINGS = (".wav", ".flac", ".ogg", ".opus", ".mp3")
EXAMPLES = 4  # of a page's collection


class Example(NamedTuple):
    """A query that a corpus has itself. original: its file, or its bytes; right: the names that belong to it."""

    name: str
    text: str
    original: Callable[[], Path | bytes]
    right: frozenset[str]


class Hit(NamedTuple):
    rank: int
    similarity: float
    name: str
    text: str


@dataclass(frozen=True)
class Collection:
    """What is searched: unit embeddings [N, D], names and texts [N], and a line for each file that was skipped.

    original: of a row, the file that was embedded, or its bytes; raises UserError where it cannot be had any more.
    source: what a page calls it. examples: for a page, a few queries of a prepared corpus.
    """

    embeddings: Tensor
    names: list[str]
    texts: list[str]
    original: Callable[[int], Path | bytes]
    skipped: list[str] = field(default_factory=list)
    source: str = ""
    examples: list[Example] = field(default_factory=list)

    def nearest(self, query: Tensor, count: int) -> list[Hit]:
        """The `count` most similar ones to a unit embedding [D], best first; ties in the collection's order."""
        similarities = self.embeddings @ query  # [N]
        order = similarities.argsort(descending=True, stable=True)[:count].tolist()
        return [
            Hit(rank, float(similarities[row]), self.names[row], self.texts[row]) for rank, row in enumerate(order, 1)
        ]


def images_of(
    pair: TrainedPair, folder: Path, split: str | None = None, served: bool = False, quiet: bool = True
) -> Collection:
    """The images below a folder, or of a prepared corpus. Raises UserError where there is none that can be read.

    served: for others to see: what a link leads out of the folder to is left out. quiet: how far it has come is not
    shown.
    """
    if _is_prepared(folder, split):
        return _of_corpus(pair, folder, split, True, served, quiet)
    return _of_files(folder, IMAGE_ENDINGS, "image", pair.view, pair.embed_views, served, quiet)


def captions_of(
    pair: TrainedPair, folder: Path, split: str | None = None, served: bool = False, quiet: bool = True
) -> Collection:
    """The recordings below a folder, or the captions of a prepared corpus. Raises UserError as `images_of`."""
    if _is_prepared(folder, split):
        return _of_corpus(pair, folder, split, False, served, quiet)
    return _of_files(folder, SPEECH_ENDINGS, "recording", pair.frames, pair.embed_frames_batch, served, quiet)


def collections_of(
    pair: TrainedPair,
    images: Path | None,
    captions: Path | None,
    split: str | None = None,
    served: bool = False,
    quiet: bool = True,
) -> dict[str, Collection]:
    """What is searched, by what it is searched by: `speech` or `image`. A file that is skipped is told of on stderr."""
    found = {}
    for kind, of, folder in (("speech", images_of, images), ("image", captions_of, captions)):
        if folder is not None:
            found[kind] = of(pair, folder, split, served, quiet)
            for line in found[kind].skipped:
                print(f"skipped: {line}", file=sys.stderr)
    return found


def _is_prepared(folder: Path, split: str | None) -> bool:
    """Whether it is a prepared corpus's folder, finished or not; of others no split can be asked for."""
    found = any((folder / name).is_file() for name in ("corpus.json", "plan.json"))
    if split and not found:
        raise UsageError(f"--split {split}: {folder} is no prepared corpus; leave --split out")
    return found


def _files_below(folder: Path, endings: Iterable[str]) -> list[Path]:
    """The files with one of these endings, in the order of their names. Raises UserError where there is none."""
    found = [path for path in folder.rglob("*") if path.suffix.lower() in endings and path.is_file()]
    if not found:
        problem = f"no file that ends in {', '.join(endings)}" if folder.is_dir() else "no such folder"
        raise UserError(f"{folder}: {problem}; give a folder of files, or of a prepared corpus")
    return sorted(found, key=lambda path: path.relative_to(folder).as_posix())


def _of_files(
    folder: Path,
    endings: tuple[str, ...],
    kind: str,
    read: Callable[[Path], Any],
    embed: Callable[[list[Any]], Tensor],
    served: bool,
    quiet: bool,
) -> Collection:
    found: list[Path] = []
    skipped: list[str] = []
    parts: list[Tensor] = []
    paths = _files_below(folder, endings)
    # Decoded files are larger than embeddings: few at a time.
    within = partial(_within, folder) if served else Path
    starts = range(0, len(paths), BATCH_SIZE)
    for start in tracked(starts, f"embedding {folder.absolute().name}", len(starts), quiet=quiet):
        readable: list[Any] = []
        for path in paths[start : start + BATCH_SIZE]:
            try:
                readable.append(read(within(path)))
                found.append(path)
            except UserError as error:
                skipped.append(str(error))
        parts.append(embed(readable))
    if not found:
        raise UserError(f"{folder}: no readable {kind}; the first: {skipped[0]}")
    names = [path.relative_to(folder).as_posix() for path in found]
    return Collection(torch.cat(parts), names, [""] * len(names), lambda row: within(found[row]), skipped, folder.name)


def _of_corpus(
    pair: TrainedPair, folder: Path, split: str | None, images: bool, served: bool, quiet: bool
) -> Collection:
    pool = PreparedPool(pair, folder)
    pool.embedder.label = "" if quiet else f"embedding {folder.absolute().name}"
    captions = pool.corpus.captions
    indices = pool.corpus.split(split) if split else list(range(len(captions)))
    if images:
        first: dict[str, int] = {}  # a caption of each image, one with a text where there is one
        for index in sorted(indices, key=lambda index: not captions[index].text):
            first.setdefault(captions[index].image_id, index)
        indices = sorted(first.values())
    embeddings = torch.cat([piece for _, piece in pool.embedded(indices, images)])
    names = [captions[index].image_id if images else captions[index].utterance_id for index in indices]
    original = pool.corpus.image if images else partial(recording_of, pool.corpus)
    texts = [captions[index].text for index in indices]
    unheard = indices if split else pool.corpus.indices_of_split["test"] or indices
    examples = list(_examples(pool.corpus, unheard, images)) if served else []
    source = pool.corpus.description.name
    return Collection(embeddings, names, texts, lambda row: original(indices[row]), [], source, examples)


def _examples(corpus: PreparedCorpus, among: list[int], images: bool) -> Iterator[Example]:
    """Recordings that search the images of these captions, or images that search the captions.

    Those whose file cannot be had are left out.
    """
    captions = corpus.captions
    image = captions.column("image")
    for place in range(min(EXAMPLES, len(among))):
        index = among[len(among) * place // EXAMPLES]
        caption = captions[index]
        if images:
            name, right = caption.utterance_id, {caption.image_id}
            original: Callable[[], Path | bytes] = partial(recording_of, corpus, index)
        else:
            name, original = caption.image_id, partial(corpus.image, index)
            right = {captions[other].utterance_id for other in np.flatnonzero(image == image[index]).tolist()}
        try:
            original()
        except UserError:
            continue
        yield Example(name, caption.text, original, frozenset(right))


def _within(folder: Path, path: Path) -> Path:
    """A file below the folder. Raises UserError where a link has led out of it."""
    if not path.resolve().is_relative_to(folder.resolve()):
        raise UserError(f"{path}: leads out of {folder}; copy it there to have it served")
    return path
