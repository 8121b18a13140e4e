"""The corpus of a study, as its prepared folder tells: its size, a few samples, what guessing reaches."""

import base64
import contextlib
import io
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
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

    @property
    def told(self) -> str:
        """Its name and size, the candidates of the test split, and what is to be known of it, in sentences."""
        told = self.name
        if self.num_captions:
            counts = ", ".join(f"{number:,} {split}" for split, number in self.num_captions.items())
            told += f": {counts} captions, {self.num_images:,} images"
        if self.hours is not None:
            told += f", {self.hours:.1f} hours" if self.hours >= 1 else f", {self.hours * 60:.0f} minutes"
            told += " of speech"
        if "test" in self.pools:
            told += "; tested on {:,} captions and {:,} images".format(*self.pools["test"])
        return " ".join(f"{sentence}." for sentence in (told, *self.notes))


def corpus_facts(summaries: list[RunSummary]) -> CorpusFacts:
    """Of runs on one corpus: what they have on record of it, and samples, if its folder is still there."""
    begun = [run for run in summaries if run.trained_on is not None]
    if len({run.corpus_identity for run in begun}) != 1:
        return CorpusFacts(", ".join(sorted({run.corpus for run in summaries})))
    run = begun[0]
    known = run.trained_on.description if run.trained_on else {}
    facts = CorpusFacts(
        run.corpus,
        known.get("hours"),
        known.get("num_captions", {}),
        known.get("num_images", 0),
        tuple(known.get("notes", ())),
        pools=_pools(begun, known.get("num_captions", {}), known.get("held_out") == "captions"),
    )
    for folder in (Path(known.get("folder") or run.experiment.data.path), run.experiment.data.path):
        if (folder / "corpus.json").is_file():
            with contextlib.suppress(UserError, OSError):
                return _with_folder(facts, folder, run.corpus_identity)
    return facts


def _pools(runs: list[RunSummary], num_captions: Mapping[str, int], all_images: bool) -> dict[str, tuple[int, int]]:
    """Test's as it was measured; other splits are taken to have as many captions an image."""
    tested = [(one.num_test_captions, one.num_test_images) for one in runs]
    captions, images = next(((these, those) for these, those in tested if these and those), (0, 0))
    if not captions:
        return {}
    others = {split: (n, images if all_images else round(n * images / captions)) for split, n in num_captions.items()}
    return {**{split: pool for split, pool in others.items() if min(pool)}, "test": (captions, images)}


def _with_folder(facts: CorpusFacts, folder: Path, identity: str) -> CorpusFacts:
    from sia.data.prepared_corpus import PreparedCorpus

    corpus = PreparedCorpus.open(folder)
    if corpus.identity != identity:
        raise UserError(f"{folder}: not the corpus of the runs")
    measured = {split: pool for split, pool in facts.pools.items() if split == "test"}
    own = {split: indices for split, indices in corpus.indices_of_split.items() if indices}
    pools = {split: (len(indices), len(corpus.image_pool(indices))) for split, indices in own.items()}
    return replace(facts, samples=tuple(_samples(corpus)), pools={**facts.pools, **pools, **measured})


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
