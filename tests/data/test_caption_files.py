"""What a shard stores of a caption's files, and which captions are dropped."""

import io
import struct
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import tiny_corpus
from PIL import Image
from readings import add, described, dropped_of, noise, prepare_reading

from sia.data.images import read_image
from sia.data.loader import PairDataset, decoded, image_batches
from sia.data.manifest import Reading
from sia.data.prepared_corpus import PreparedCorpus
from sia.data.verify import verify_corpus


def test_what_cannot_be_used_is_dropped_and_listed(raw: Path, tmp_path: Path) -> None:
    captions = tiny_corpus.read(raw).captions
    kept = [add(raw, "longest", noise(8191 * 200)), add(raw, "shortest", noise(5 * 200))]
    too_many = [add(raw, "long", noise(8192 * 200))]
    too_short = [add(raw, "short", noise(5 * 200 - 1)), add(raw, "click", noise(150))]
    no_speech = [
        add(raw, "noise"),
        replace(add(raw, "gone", noise(4000)), speech_path=str(raw / "nowhere.wav")),
        add(raw, "nothing", noise(0)),
        add(raw, "nan", np.full(4000, np.nan)),
        add(raw, "rate", noise(4000)),
    ]
    header = bytearray((raw / "rate.wav").read_bytes())
    header[24:28] = struct.pack("<I", 2_000_000_011)
    (raw / "rate.wav").write_bytes(header)
    no_image = [add(raw, "blind", noise(4000), image=False)]
    corpus = described(raw, captions + kept + too_many + too_short + no_speech + no_image, tmp_path / "out")

    lengths = {caption.utterance_id: caption.num_frames for caption in corpus.captions}
    assert lengths.keys() == {caption.utterance_id for caption in captions + kept}
    assert (lengths["longest"], lengths["shortest"]) == (8192, 6)
    expected = {
        "more than 8192 frames": too_many,
        "too short speech": too_short,
        "unreadable speech": no_speech,
        "unreadable image": no_image,
    }
    assert corpus.description.dropped == {reason: len(dropped) for reason, dropped in expected.items()}
    listed = dropped_of(corpus)
    assert {name: reason for name, (reason, _) in listed.items()} == {
        caption.utterance_id: reason for reason, dropped in expected.items() for caption in dropped
    }
    assert str(raw / "short.wav") in listed["short"][1]
    assert "dropped 5: unreadable speech" in corpus.description.summary()


@pytest.mark.parametrize("size", [(100, 50), (20, 90)])
@pytest.mark.parametrize("format", ["PNG", "JPEG", "GIF"])
def test_images_are_resized_or_the_files_themselves(tmp_path: Path, format: str, size: tuple[int, int]) -> None:
    raw = tmp_path / "raw"
    raw.mkdir()
    caption = add(raw, "first", noise(4000))
    shape = (*size[::-1], 3)
    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, shape, dtype=np.uint8))
    image.save(caption.image_path, format)
    resized = described(raw, [caption], tmp_path / "resized", num_shards=1, short_side=40)
    assert min(read_image(io.BytesIO(resized.image(0))).size) == resized.description.short_side == 40
    assert (resized.image(0)[:3] == b"\xff\xd8\xff") == (format == "JPEG"), "a JPEG stays one, whatever its name"
    corpus = described(raw, [caption], tmp_path / "out", num_shards=1, short_side=40, images="original")
    assert corpus.image(0) == Path(caption.image_path).read_bytes()
    assert (corpus.description.short_side, corpus.description.images) == (None, "original")
    assert corpus.identity != resized.identity and corpus.description.pixel_mean == resized.description.pixel_mean
    small = tiny_corpus.experiment(**{"data.short_side": 20, "data.crop_size": 20})
    assert PairDataset(corpus, small)[(0, 0)][1].shape == (20, 20, 3)
    assert decoded(corpus, 0, 40).shape == decoded(resized, 0, 40).shape
    assert [batch.shape for batch in image_batches(corpus, [0], 2, 30, short_side=30)] == [(1, 3, 30, 30)]


def test_frames_that_others_computed_are_kept_or_dropped(raw: Path, tmp_path: Path) -> None:
    good = {name: np.random.default_rng(length).normal(size=(length, 13)) for length, name in [(6, "a"), (40, "b")]}
    wrong = {
        "short": np.zeros((5, 13)),
        "long": np.zeros((8193, 13)),
        "wide": np.zeros((9, 14)),
        "infinite": np.full((9, 13), np.inf),
        "flat": np.zeros(9),
    }
    with h5py.File(raw / "frames.h5", "w") as file:
        for name, array in {**good, **wrong}.items():
            file[name] = array
    captions = [
        replace(add(raw, name, noise(0)), speech_path=f"{raw}/frames.h5::{name}", split="train")
        for name in (*good, *wrong, "gone")
    ]
    features = {"kind": "fbanks", "coefficients": 13, "source": "somebody"}
    prepare_reading(Reading(captions, [], features=features), tmp_path / "out")
    corpus = PreparedCorpus.open(tmp_path / "out")
    assert {name: reason for name, (reason, _) in dropped_of(corpus).items()} == {
        "short": "too short speech",
        "long": "more than 8192 frames",
        "wide": "frames of another width",
        **dict.fromkeys(["infinite", "flat", "gone"], "unreadable speech"),
    }
    assert corpus.description.features == features and corpus.description.hours is None
    by_name = {caption.utterance_id: corpus.frames(index) for index, caption in enumerate(corpus.captions)}
    assert by_name.keys() == good.keys()
    assert all(np.array_equal(by_name[name], array.astype(np.float32)) for name, array in good.items())
    together = np.concatenate([array.astype(np.float32) for array in good.values()])
    assert corpus.description.frame_mean == pytest.approx(together.mean(axis=0, dtype=float).tolist())
    assert "fbanks, 13 coefficients" in corpus.description.summary()
    assert "all good" in verify_corpus(corpus.folder, processes=0)
