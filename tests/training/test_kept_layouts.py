"""Corpora and checkpoints as an earlier layout's program wrote them are read, and training goes on with them."""

import io
import lzma
from pathlib import Path

import numpy as np
import pytest
import stages
from kept_layouts import COLOURS, FIXTURES, SIDE, SPLITS, experiment, value_of, wave_of
from PIL import Image

from sia.checkpoint.state import CHECKPOINT_VERSION
from sia.data.mfcc import mfcc
from sia.data.prepared_corpus import PreparedCorpus
from sia.data.shards import LAYOUT_VERSION
from sia.models.dual_encoder import DualEncoder
from sia.run.row_files import read_rows

CORPORA = sorted(path.name for path in FIXTURES.glob("corpus-*"))
CHECKPOINTS = sorted(path.name for path in FIXTURES.glob("checkpoint-*.pt.xz"))


def test_the_layouts_of_today_are_kept() -> None:
    assert f"corpus-{LAYOUT_VERSION}" in CORPORA and f"checkpoint-{CHECKPOINT_VERSION}.pt.xz" in CHECKPOINTS


@pytest.mark.parametrize("name", CORPORA)
def test_a_kept_corpus_holds_what_was_prepared(name: str) -> None:
    corpus = PreparedCorpus.open(FIXTURES / name)
    assert {split: len(corpus.split(split)) for split in SPLITS} == SPLITS
    for split, count in SPLITS.items():
        for number, index in zip(range(count), corpus.split(split), strict=True):
            caption = corpus.captions[index]
            assert (caption.utterance_id, caption.image_id) == (f"{split}-{number}-a", f"{split}-{number}")
            assert caption.text == f"caption {number} of {split}"
            np.testing.assert_allclose(corpus.frames(index), mfcc(wave_of(number), 16_000), atol=0.05)
            image = Image.open(io.BytesIO(corpus.image(index)))
            assert image.size == (SIDE, SIDE) and image.convert("RGB").getpixel((3, 3)) == COLOURS[number]


@pytest.mark.parametrize("corpus", CORPORA)
@pytest.mark.parametrize("name", CHECKPOINTS)
def test_training_goes_on_from_a_kept_checkpoint(corpus: str, name: str, tmp_path: Path) -> None:
    run = stages.begin(tmp_path, experiment(FIXTURES / corpus))
    last = run.stage(1).last
    last.parent.mkdir()
    last.write_bytes(lzma.decompress((FIXTURES / name).read_bytes()))
    before = stages.saved(last)
    network = DualEncoder.from_config(run.experiment().model)
    network.load_state_dict(before["model"])
    assert all(bool((weight == value_of(place)).all()) for place, weight in enumerate(network.parameters()))
    assert stages.train(run)
    first, second = read_rows(run.metrics)
    assert first == before["progress"]["rows"][0] and second["epoch"] == 2
    assert {float(moments["step"]) for moments in stages.saved(last)["optimizer"]["state"].values()} == {3.0}
