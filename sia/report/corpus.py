"""The corpus of a study, as its prepared folder tells: its size, a few samples, what guessing reaches."""

import base64
import contextlib
import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from sia.errors import UserError
from sia.report.chance import Chances, chance
from sia.report.summary import RunSummary

if TYPE_CHECKING:
    from sia.data.prepared_corpus import PreparedCorpus

SAMPLES = 4
SIDE = 240  # pixels


@dataclass(frozen=True)
class Sample:
    """A caption in words, where the corpus has any, and its image as a data URI."""

    text: str
    image: str


@dataclass(frozen=True)
class CorpusFacts:
    """Of the one corpus of a study; `pools` and `chances` by split, none where nothing is known of it."""

    name: str = ""
    hours: float | None = None
    num_captions: Mapping[str, int] = field(default_factory=dict)
    num_images: int = 0
    notes: tuple[str, ...] = ()
    samples: tuple[Sample, ...] = ()
    pools: Mapping[str, tuple[int, int]] = field(default_factory=dict)  # captions, images

    @property
    def chances(self) -> dict[str, Chances]:
        return {split: chance(*pool) for split, pool in self.pools.items()}


def corpus_facts(summaries: list[RunSummary]) -> CorpusFacts:
    """Of runs on one corpus: of its folder, if that is still there, else what a finished run has on record."""
    names = {(run.corpus, run.corpus_identity) for run in summaries if run.corpus_identity}
    if len(names) != 1:
        return CorpusFacts(", ".join(sorted({run.corpus for run in summaries})))
    ((name, identity),) = names
    tested = [(one.num_test_captions, one.num_test_images) for one in summaries]
    pool = next(((captions, images) for captions, images in tested if captions and images), None)
    pools = {} if pool is None else {"test": pool}
    for folder in map(Path, next(run for run in summaries if run.corpus_identity).corpus_folders):
        if (folder / "corpus.json").is_file():
            with contextlib.suppress(UserError, OSError):
                return _of_folder(folder, identity, pools)
    return CorpusFacts(name, pools=pools)


def _of_folder(folder: Path, identity: str, pools: dict[str, tuple[int, int]]) -> CorpusFacts:
    from sia.data.prepared_corpus import PreparedCorpus

    corpus = PreparedCorpus.open(folder)
    if corpus.identity != identity:
        raise UserError(f"{folder}: not the corpus of the runs")
    known = corpus.description
    found = {
        split: (len(indices), len(corpus.image_pool(indices)))
        for split, indices in corpus.indices_of_split.items()
        if indices
    }
    return CorpusFacts(
        known.name,
        known.hours,
        known.num_captions,
        known.num_images,
        tuple(known.notes),
        tuple(_samples(corpus)),
        {**found, **pools},
    )


def _samples(corpus: "PreparedCorpus") -> list[Sample]:
    indices = next((corpus.indices_of_split[split] for split in ("test", "validation", "train")), [])
    chosen = indices[:: max(1, len(indices) // SAMPLES)][:SAMPLES]
    return [Sample(corpus.captions[one].text, _thumbnail(corpus.image(one))) for one in chosen]


def _thumbnail(file: bytes) -> str:
    from PIL import Image

    stream = io.BytesIO()
    with Image.open(io.BytesIO(file)) as image:
        image.thumbnail((SIDE, SIDE))
        image.convert("RGB").save(stream, "JPEG", quality=80)
    return f"data:image/jpeg;base64,{base64.b64encode(stream.getvalue()).decode()}"
