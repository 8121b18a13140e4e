"""What a shard stores of a caption's files, and which captions are dropped."""

import io
import os
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import tiny_corpus
from PIL import Image
from readings import add, described, dropped_of, noise, prepare_reading

from sia.data.images import read_image
from sia.data.loader import ImageDataset, PairDataset, decoded
from sia.data.manifest import Reading, SpokenCaption
from sia.data.prepare import summary
from sia.data.prepared_corpus import PreparedCorpus, shard_path
from sia.data.shards import ShardReader
from sia.data.verify import verify_corpus
from sia.errors import UserError


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """16 captions of 12 images."""
    tiny_corpus.write_corpus(tmp_path / "raw", kinds=2)
    return tmp_path / "raw"


def add_first(raw: Path) -> SpokenCaption:
    raw.mkdir(parents=True)
    return add(raw, "first", noise(4000))


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
    ]
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
    assert corpus.description["dropped"] == {reason: len(dropped) for reason, dropped in expected.items()}
    listed = dropped_of(corpus)
    assert {name: reason for name, (reason, _) in listed.items()} == {
        caption.utterance_id: reason for reason, dropped in expected.items() for caption in dropped
    }
    assert all(path in detail for path, detail in [(str(raw / "short.wav"), listed["short"][1])])
    assert "dropped 4: unreadable speech" in summary(corpus.description)


def test_a_corpus_of_which_all_was_dropped(tmp_path: Path) -> None:
    (tmp_path / "raw").mkdir()
    captions = [add(tmp_path / "raw", "a"), add(tmp_path / "raw", "b")]
    with pytest.raises(UserError, match=r"every caption of corpus 'tiny' was dropped.*unreadable speech") as caught:
        described(tmp_path / "raw", captions, tmp_path / "out")
    assert "\n" not in str(caught.value) and str(tmp_path / "out") in str(caught.value)
    with pytest.raises(UserError, match="not finished"):
        PreparedCorpus.open(tmp_path / "out")


@pytest.mark.parametrize("size", [(100, 50), (20, 90)])
def test_images_are_resized(tmp_path: Path, size: tuple[int, int]) -> None:
    raw = tmp_path / "raw"
    caption = add_first(raw)
    Image.new("RGB", size).save(caption.image_path)
    corpus = described(raw, [caption], tmp_path / "out", num_shards=1, short_side=40)
    assert min(read_image(io.BytesIO(corpus.image(0))).size) == 40
    assert corpus.description["short_side"] == 40


@pytest.mark.parametrize("format", ["PNG", "JPEG", "GIF"])
def test_original_images_are_the_files_themselves(tmp_path: Path, format: str) -> None:
    raw = tmp_path / "raw"
    caption = add_first(raw)
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (70, 50, 3), dtype=np.uint8)).save(
        caption.image_path, format
    )
    corpus = described(raw, [caption], tmp_path / "out", num_shards=1, short_side=40, images="original")
    assert corpus.image(0) == Path(caption.image_path).read_bytes()
    assert (corpus.description["short_side"], corpus.description["images"]) == (None, "original")
    resized = described(raw, [caption], tmp_path / "resized", num_shards=1, short_side=40)
    assert resized.identity != corpus.identity
    assert resized.description["pixel_mean"] == corpus.description["pixel_mean"]
    assert (resized.image(0)[:3] == b"\xff\xd8\xff") == (format == "JPEG"), "a JPEG stays one, whatever its name"
    small = tiny_corpus.experiment(**{"data.short_side": 20, "data.crop_size": 20})
    assert PairDataset(corpus, small)[(0, 0)][1].shape == (3, 20, 20)
    assert np.array_equal(decoded(corpus, 0, 40).shape, decoded(resized, 0).shape)
    assert ImageDataset(corpus, [0], 30, short_side=30)[0].shape == (3, 30, 30)
    with pytest.raises(ValueError, match="short_side"):
        decoded(corpus, 0)


def test_an_original_image_that_is_not_whole_is_dropped(raw: Path, tmp_path: Path) -> None:
    captions = tiny_corpus.read(raw).captions
    os.truncate(captions[0].image_path, os.stat(captions[0].image_path).st_size - 200)
    corpus = described(raw, captions, tmp_path / "out", images="original")
    assert corpus.description["dropped"] == {"unreadable image": 2}


IMPORTED = {"kind": "fbanks", "coefficients": 13, "source": "somebody"}


def imported(raw: Path, arrays: dict[str, np.ndarray]) -> Reading:
    """Captions whose frames lie in an HDF5 file; each has an image of its own."""
    with h5py.File(raw / "frames.h5", "w") as file:
        for name, array in arrays.items():
            file[name] = array
    captions = [
        replace(add(raw, name, noise(0)), speech_path=f"{raw}/frames.h5::{name}", split="train") for name in arrays
    ]
    return Reading(captions, [], features=IMPORTED)


def test_frames_that_others_computed(raw: Path, tmp_path: Path) -> None:
    arrays = {name: np.random.default_rng(length).normal(size=(length, 13)) for length, name in [(6, "a"), (40, "b")]}
    prepare_reading(imported(raw, arrays), tmp_path / "out")
    corpus = PreparedCorpus.open(tmp_path / "out")
    assert corpus.description["features"] == IMPORTED and corpus.description["hours"] is None
    by_name = {caption.utterance_id: corpus.frames(index) for index, caption in enumerate(corpus.captions)}
    assert by_name.keys() == arrays.keys()
    assert all(np.array_equal(by_name[name], array.astype(np.float32)) for name, array in arrays.items())
    together = np.concatenate([array.astype(np.float32) for array in arrays.values()])
    assert corpus.description["frame_mean"] == pytest.approx(together.mean(axis=0, dtype=float).tolist())
    assert "fbanks, 13 coefficients" in summary(corpus.description)
    assert "all good" in verify_corpus(corpus.folder, processes=0)


def test_imported_frames_that_cannot_be_used_are_dropped(raw: Path, tmp_path: Path) -> None:
    wrong = {
        "short": np.zeros((5, 13)),
        "long": np.zeros((8193, 13)),
        "wide": np.zeros((9, 14)),
        "infinite": np.full((9, 13), np.inf),
        "flat": np.zeros(9),
    }
    reading = imported(raw, {"good": np.ones((9, 13)), **wrong})
    gone = replace(add(raw, "gone", noise(0)), speech_path=f"{raw}/frames.h5::gone")
    prepare_reading(reading._replace(captions=[*reading.captions, gone]), tmp_path / "out")
    corpus = PreparedCorpus.open(tmp_path / "out")
    assert [caption.utterance_id for caption in corpus.captions] == ["good"]
    assert {name: reason for name, (reason, _) in dropped_of(corpus).items()} == {
        "short": "too short speech",
        "long": "more than 8192 frames",
        "wide": "frames of another width",
        **dict.fromkeys(["infinite", "flat", "gone"], "unreadable speech"),
    }


def test_every_shard_says_what_was_dropped_from_it(raw: Path, tmp_path: Path) -> None:
    captions = [*tiny_corpus.read(raw).captions, add(raw, "blind", noise(4000), image=False)]
    described(raw, captions, tmp_path / "out", num_shards=2)
    dropped = [ShardReader(shard_path(tmp_path / "out", number)).strings("dropped") for number in range(2)]
    assert [len(lines) for lines in dropped] == [0, 1]
