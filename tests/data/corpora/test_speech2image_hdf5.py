"""Files as speech2image's preprocessing writes them: groups of Flickr8k's images and of Places' utterances."""

import json
from pathlib import Path

import h5py
import numpy as np
import pytest
from corpus_files import dropped, picture, prepared, refused, write_json

from sia.data.corpora import read
from sia.data.hdf5_path import read_frames
from sia.data.manifest import Reading

NAME = "speech2image_hdf5"
IMAGES = {"1000_ab": "train", "1001_cd": "train", "1002_ef": "val", "1003_gh": "test", "1003_gh_2": "train"}


def frames(name: str, width: int) -> np.ndarray:
    """[T, width], other ones for each recording."""
    chance = np.random.default_rng(list(name.encode()))
    return chance.normal(size=(int(chance.integers(6, 30)), width)).astype(np.float32)


def add(file: h5py.File, group: str, recordings: list[str], prefix: str, features: dict[str, int]) -> None:
    for feature, width in features.items():
        for name in recordings:
            file[f"{group}/{feature}/{prefix}{name}"] = frames(name, width)
    file[f"{group}/resnet/{prefix}image"] = np.zeros(2048, np.float32)


@pytest.fixture
def flickr(tmp_path: Path) -> Path:
    """Five images of two captions each; the tool gave the fourth one of the fifth's recordings, too."""
    listed = [
        {"filename": f"{image}.jpg", "split": split, "sentences": [{"raw": f"{image} zero"}, {"raw": f"{image} one"}]}
        for image, split in IMAGES.items()
    ]
    write_json(tmp_path / "dataset.json", {"images": listed})
    with h5py.File(tmp_path / "flickr_features.h5", "w") as file:
        for image in IMAGES:
            picture(tmp_path / "Flicker8k_Dataset" / f"{image}.jpg")
            recordings = [f"{image}_0", f"{image}_1"] + (["1003_gh_2_0"] if image == "1003_gh" else [])
            add(file, f"flickr_{image}", recordings, "flickr_", {"mfcc": 39, "fbanks": 40})
    return tmp_path


def speech2image(root: Path | str) -> Reading:
    return read(NAME, root)


def test_flickr_captions_have_karpathys_splits_and_texts(flickr: Path) -> None:
    with h5py.File(flickr / "flickr_features.h5", "r+") as file:
        add(file, "flickr_2000_zz", ["2000_zz_0"], "flickr_", {"mfcc": 39})
        file.create_group("flickr_3000_zz/mfcc")
    reading = speech2image(flickr)
    by_name = {caption.utterance_id: caption for caption in reading.captions}
    assert len(by_name) == 10
    assert (by_name["1002_ef_1"].split, by_name["1002_ef_1"].text) == ("validation", "1002_ef one")
    assert by_name["1003_gh_0"].image_path == str(flickr / "Flicker8k_Dataset" / "1003_gh.jpg")
    assert by_name["1003_gh_2_0"].image_id == "1003_gh_2.jpg"
    assert dropped(reading) == {
        "1003_gh_2_0": "its recording is one of another image",
        "2000_zz_0": "its image is in no split",
    }
    assert reading.features == {"kind": "mfcc", "coefficients": 39, "source": "speech2image"}


def test_prepared_frames_are_those_of_the_file(flickr: Path, tmp_path: Path) -> None:
    corpus = prepared(NAME, flickr, tmp_path / "out")
    for index, caption in enumerate(corpus.captions):
        assert np.array_equal(corpus.frames(index), frames(caption.utterance_id, 39))
    assert len(corpus.captions) == 10 and corpus.description.hours is None
    assert len(corpus.description.frame_std) == 39


def test_another_feature_may_be_named(flickr: Path) -> None:
    features = speech2image(f"{flickr}/flickr_features.h5::fbanks").features
    assert features is not None and (features["kind"], features["coefficients"]) == ("fbanks", 40)
    refused(NAME, Path(f"{flickr}/flickr_features.h5::mbn"), "no feature mbn there, but fbanks, mfcc, resnet")


@pytest.fixture
def places(tmp_path: Path) -> Path:
    """Two captions of training images and one of a test image in two subgroups; a third has no frames."""
    records = {"train": ["A1-GSUN_1", "A1-GSUN_2", "A2-GSUN_3"], "val": ["A3-GSUN_4"]}
    for split, names in records.items():
        data = [
            {"uttid": name, "wav": f"wavs/1/{name}.wav", "image": f"a/abbey/{name}.jpg", "asr_text": "an abbey"}
            for name in names
        ]
        write_json(tmp_path / f"{split}.json", {"data": data})
        for name in names:
            picture(tmp_path / "images" / f"a/abbey/{name}.jpg")
    with h5py.File(tmp_path / "places_features.h5", "w") as file:
        for number, name in enumerate(["A1-GSUN_1", "A1-GSUN_2", "A3-GSUN_4", "A9-GSUN_9"]):
            group = f"subgroup_{number % 2}/places_{name.replace('-', '_')}"
            add(file, group, [name], "places_", {"mfcc": 39})
    return tmp_path


def test_places_captions_have_the_metadatas_splits_and_texts(places: Path) -> None:
    reading = speech2image(places)
    by_name = {caption.utterance_id: caption for caption in reading.captions}
    assert by_name.keys() == {"A1-GSUN_1", "A1-GSUN_2", "A3-GSUN_4"}
    assert by_name["A3-GSUN_4"].split == "test" and by_name["A1-GSUN_1"].text == "an abbey"
    for name, caption in by_name.items():
        assert np.array_equal(read_frames(caption.speech_path), frames(name, 39))
    assert dropped(reading) == {"A2-GSUN_3": "no frames of it in the HDF5 file", "A9_GSUN_9": "in no metadata"}


def test_what_is_missing_or_unknown_is_named(flickr: Path, tmp_path: Path) -> None:
    content = json.loads((flickr / "dataset.json").read_text())
    content["images"][2]["split"] = "dev2"
    write_json(flickr / "dataset.json", content)
    refused(NAME, flickr, "record 2 of `images` has split 'dev2'")
    (flickr / "dataset.json").unlink()
    refused(NAME, flickr, r"no dataset\.json")
    other = tmp_path / "other"
    other.mkdir()
    refused(NAME, other, r"no \.h5 file there")
    with h5py.File(other / "other.h5", "w") as file:
        file["data"] = [1]
    refused(NAME, other, r"no groups flickr_\*")
    (other / "another.h5").touch()
    refused(NAME, other, r"several \.h5 files \(another\.h5, other\.h5\)")
