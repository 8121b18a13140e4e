"""Corpora that a test changes before they are prepared: one more caption, another reading."""

import json
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import tiny_corpus

from sia.data.corpora import READERS
from sia.data.manifest import Images, Reading, SpokenCaption
from sia.data.prepare import finish, plan, write_shard
from sia.data.prepared_corpus import PreparedCorpus


def add(root: Path, name: str, wave: np.ndarray | None = None, image: bool = True) -> SpokenCaption:
    """One more training caption; without a wave or an image, that file is damaged."""
    new = tiny_corpus.caption(root, name, f"image-{name}")
    Path(new.speech_path).write_text("damaged")
    Path(new.image_path).write_text("damaged")
    if wave is not None:
        tiny_corpus.record(Path(new.speech_path), wave)
    if image:
        tiny_corpus.draw(Path(new.image_path), 0, 0, seed=0)
    return new


def moved(root: Path, to: Path) -> Path:
    """A corpus's files, copied to another folder."""
    shutil.copytree(root, to)
    captions = tiny_corpus.read(root).captions
    tiny_corpus.describe(to, [tiny_corpus.caption(to, c.utterance_id, c.image_id, c.split) for c in captions])
    return to


def noise(samples: int) -> np.ndarray:
    return np.random.default_rng(0).normal(0, 0.1, samples)


def described(
    root: Path,
    captions: list[SpokenCaption],
    out: Path,
    num_shards: int = 2,
    short_side: int = tiny_corpus.SIDE,
    images: Images = "resized",
) -> PreparedCorpus:
    tiny_corpus.describe(root, captions)
    prepare_reading(tiny_corpus.read(root), out, num_shards, short_side, images)
    return PreparedCorpus.open(out)


def prepare_reading(
    reading: Reading, out: Path, num_shards: int = 2, short_side: int = 32, images: Images = "resized"
) -> None:
    """Prepare what a reader found, as jobs/prepare.py does it, in this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(READERS, "tiny", "a_reading")
        patch.setitem(sys.modules, "a_reading", SimpleNamespace(read=lambda root: reading))
        plan("tiny", out, out, num_shards, short_side, images=images)
    for number in range(num_shards):
        write_shard(out, number)
    finish(out)


def dropped_of(corpus: PreparedCorpus) -> dict[str, tuple[str, str]]:
    rows = map(json.loads, (corpus.folder / "dropped.jsonl").read_text().splitlines())
    return {row["utterance_id"]: (row["reason"], row["detail"]) for row in rows}
