"""Files as ResDAVEnet-VQ's dump_hdf5_dataset.py writes them, from the JSON file to a prepared corpus."""

import io
from collections import Counter
from pathlib import Path

import h5py
import numpy as np
import pytest
import tiny_corpus
from corpus_files import dropped, prepared, refused, write_json
from PIL import Image

from sia.data.corpora import read
from sia.data.images import pixels, read_image
from sia.data.manifest import Reading

NAME = "resdavenet_hdf5"
BANDS, COLUMNS = 8, 64  # 40 and 2048 in the real files
LENGTHS = {"PlacesEnglish400kTrain": [10, 20, 30, 64, 6, 7, 8, 9, 12, 13], "PlacesEnglish400kVal": [11, 21, 31]}


def drawn(shade: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (40, 36), (shade, 0, 0)).save(buffer, "JPEG")
    return buffer.getvalue()


def spectra(lengths: list[int], seed: int) -> np.ndarray:
    """[N, F, columns]: numbers below zero, then the tool's padding."""
    padded = np.zeros((len(lengths), BANDS, COLUMNS), np.float32)
    for row, length in enumerate(lengths):
        padded[row, :, :length] = -1 - np.random.default_rng([seed, row]).random((BANDS, length))
    return padded


def dump(folder: Path, name: str, lengths: list[int], shades: list[int], named: str = "./data", seed: int = 0) -> None:
    """The three files of a split; `named`: the folder that the JSON file says they lie in."""
    folder.mkdir(parents=True, exist_ok=True)
    with h5py.File(folder / f"{name}_audio.hdf5", "w") as file:
        file["melspec"] = spectra(lengths, seed)
        file["melspec_len"] = np.array(lengths, np.int64)
    with h5py.File(folder / f"{name}_image.hdf5", "w") as file:
        stored = file.create_dataset("image", (len(shades),), dtype=h5py.special_dtype(vlen=np.dtype("uint8")))
        for row, shade in enumerate(shades):
            stored[row] = np.frombuffer(drawn(shade), np.uint8)
    paths = {f"{kind}_hdf5_path": f"{named}/{name}_{kind}.hdf5" for kind in ("audio", "image")}
    write_json(folder / f"{name}HDF5.json", paths)


@pytest.fixture
def dumped(tmp_path: Path) -> Path:
    """Ten captions of eight training images, and three captions of three others."""
    train, val = LENGTHS
    dump(tmp_path, train, LENGTHS[train], [0, 20, 40, 60, 80, 100, 120, 140, 0, 20])
    dump(tmp_path, val, LENGTHS[val], [200, 220, 240], seed=1)
    return tmp_path


def splits(reading: Reading) -> Counter[str]:
    return Counter(caption.split for caption in reading.captions)


def test_val_is_test_and_images_are_held_out_of_train(dumped: Path) -> None:
    (dumped / "notes.json").write_text("[1, 2]")
    (dumped / "broken.json").write_text("{")
    reading = read(NAME, dumped)
    assert splits(reading)["test"] == 3 and splits(reading)["validation"] >= 1
    assert len({caption.image_id for caption in reading.captions if caption.split == "validation"}) == 1
    assert len(reading.captions) == 13 and not reading.dropped
    assert any("PlacesEnglish400kValHDF5.json is the test split" in note for note in reading.notes)
    assert reading.features == {
        **{"kind": "melspec", "coefficients": BANDS, "mel_bands": BANDS, "source": "ResDAVEnet"},
        **{"sample_rate": 16_000, "n_fft": 400, "hop_length": 160},
    }


def test_byte_identical_images_are_one_image(dumped: Path) -> None:
    train = [caption for caption in read(NAME, dumped).captions if caption.split != "test"]
    assert len({caption.image_id for caption in train}) == 8
    for first, second in ((0, 8), (1, 9)):
        assert train[first].image_id == train[second].image_id
        assert train[first].image_path == train[second].image_path


def test_with_files_of_test_val_is_validation(dumped: Path) -> None:
    dump(dumped, "test_seen_2020", [9, 9], [250, 20], seed=2)
    reading = read(NAME, dumped)
    # The second image is trained on too: the test keeps it.
    assert splits(reading) == {"train": 8, "validation": 3, "test": 2}
    assert set(dropped(reading).values()) == {"its image is in a held-out split too"}


def test_frames_are_the_unpadded_columns_and_images_the_files(dumped: Path, tmp_path: Path) -> None:
    from sia.data.loader import PairDataset, collate

    corpus = prepared(NAME, dumped, tmp_path / "out")
    assert len(corpus.captions) == 13
    for index, caption in enumerate(corpus.captions):
        name, _, row = caption.utterance_id.partition("HDF5-")
        own = spectra(LENGTHS[name], seed=int(name.endswith("Val")))[int(row)]
        assert np.array_equal(corpus.frames(index), own[:, : LENGTHS[name][int(row)]].T)
        assert corpus.frames(index).max() < 0, "no padding"
        assert min(pixels(read_image(io.BytesIO(corpus.image(index)))).shape[:2]) == 32
    assert corpus.description.features["coefficients"] == BANDS == len(corpus.description.frame_mean)
    assert corpus.description.hours == pytest.approx(sum(map(sum, LENGTHS.values())) * 0.01 / 3600)
    settings = tiny_corpus.experiment(**{"model.frame_features": BANDS, "data.standardise_frames": True})
    batch = collate([PairDataset(corpus, settings)[(position, 0)] for position in range(3)])
    assert batch.frames.shape[2] == BANDS and batch.frames.isfinite().all()


def test_captions_without_enough_frames_or_with_nan_are_dropped(dumped: Path, tmp_path: Path) -> None:
    with h5py.File(dumped / "PlacesEnglish400kTrain_audio.hdf5", "r+") as file:
        file["melspec_len"][0] = 5
        file["melspec"][1, 3, 4] = np.nan
    corpus = prepared(NAME, dumped, tmp_path / "out")
    assert corpus.description.dropped == {"too short speech": 1, "unreadable speech": 1}
    assert len(corpus.captions) == 11


@pytest.mark.parametrize("named", ["/another/machine", "data", ".", "far"])
def test_files_are_found_where_the_json_file_says_or_beside_it(tmp_path: Path, named: str) -> None:
    dump(tmp_path / "far", "train", [9, 9], [0, 9], named)
    if named == "far":
        (tmp_path / "far" / "trainHDF5.json").rename(tmp_path / "trainHDF5.json")
    assert len(read(NAME, tmp_path if named == "far" else tmp_path / "far").captions) == 2


def test_what_is_missing_or_does_not_fit_is_named(dumped: Path, tmp_path: Path) -> None:
    refused(NAME, tmp_path / "nowhere", "nowhere: no JSON file")
    (dumped / "PlacesEnglish400kVal_audio.hdf5").rename(dumped / "kept.hdf5")
    refused(NAME, dumped, r"PlacesEnglish400kValHDF5\.json: audio_hdf5_path .* is not there; put")
    (dumped / "PlacesEnglish400kVal_audio.hdf5").write_text("no HDF5")
    refused(NAME, dumped, r"PlacesEnglish400kVal_audio\.hdf5: no readable HDF5 file")
    dump(dumped, "PlacesEnglish400kVal", [9], [1, 2])
    refused(NAME, dumped, r"\[1, 2\] rows")
    with h5py.File(dumped / "PlacesEnglish400kVal_audio.hdf5", "w") as file:
        file["other"] = [1]
    refused(NAME, dumped, r"Val_audio\.hdf5: .*no dataset melspec")
    (dumped / "PlacesEnglish400kValHDF5.json").rename(dumped / "places.json")
    refused(NAME, dumped, r"places\.json: its name tells no split")
