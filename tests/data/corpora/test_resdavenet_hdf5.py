"""Files as ResDAVEnet-VQ's dump_hdf5_dataset.py writes them, from the JSON file to a prepared corpus."""

import io
import json
from collections import Counter
from pathlib import Path

import h5py
import numpy as np
import pytest
import tiny_corpus
from PIL import Image

from sia.data.corpora import read
from sia.data.images import pixels, read_image
from sia.data.manifest import Reading
from sia.data.prepare import finish, plan, write_shard
from sia.data.prepared_corpus import PreparedCorpus
from sia.errors import UserError

BANDS, COLUMNS = 8, 64  # 40 and 2048 in the real files


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


def dump(
    folder: Path, name: str, lengths: list[int], images: list[bytes], named: str = "./data", seed: int = 0
) -> Path:
    """The three files of a split; `named`: the folder that the JSON file says they lie in."""
    folder.mkdir(parents=True, exist_ok=True)
    with h5py.File(folder / f"{name}_audio.hdf5", "w") as file:
        file["melspec"] = spectra(lengths, seed)
        file["melspec_len"] = np.array(lengths, np.int64)
    with h5py.File(folder / f"{name}_image.hdf5", "w") as file:
        stored = file.create_dataset("image", (len(images),), dtype=h5py.special_dtype(vlen=np.dtype("uint8")))
        for row, image in enumerate(images):
            stored[row] = np.frombuffer(image, np.uint8)
    paths = {f"{kind}_hdf5_path": f"{named}/{name}_{kind}.hdf5" for kind in ("audio", "image")}
    (folder / f"{name}HDF5.json").write_text(json.dumps(paths))
    return folder / f"{name}HDF5.json"


@pytest.fixture
def dumped(tmp_path: Path) -> Path:
    """Ten captions of eight training images, and three captions of three others."""
    shades = [drawn(shade) for shade in (0, 20, 40, 60, 80, 100, 120, 140, 0, 20)]
    dump(tmp_path, "PlacesEnglish400kTrain", [10, 20, 30, 64, 6, 7, 8, 9, 12, 13], shades)
    dump(tmp_path, "PlacesEnglish400kVal", [11, 21, 31], [drawn(shade) for shade in (200, 220, 240)], seed=1)
    return tmp_path


def prepared(root: Path, out: Path) -> PreparedCorpus:
    for number in range(plan("resdavenet_hdf5", root, out, 2, 32)):
        write_shard(out, number)
    finish(out)
    return PreparedCorpus.open(out)


def refused(root: Path) -> str:
    with pytest.raises(UserError) as caught:
        read("resdavenet_hdf5", root)
    assert str(root) in str(caught.value) and "\n" not in str(caught.value)
    return str(caught.value)


def splits(reading: Reading) -> Counter[str]:
    return Counter(caption.split for caption in reading.captions)


def test_val_is_test_and_images_are_held_out_of_train(dumped: Path) -> None:
    reading = read("resdavenet_hdf5", dumped)
    assert splits(reading)["test"] == 3 and splits(reading)["validation"] >= 1
    assert len({caption.image_id for caption in reading.captions if caption.split == "validation"}) == 1
    assert len(reading.captions) == 13 and not reading.dropped
    assert any("PlacesEnglish400kValHDF5.json is the test split" in note for note in reading.notes)
    assert reading.features == {
        **{"kind": "melspec", "coefficients": BANDS, "mel_bands": BANDS, "source": "ResDAVEnet"},
        **{"sample_rate": 16_000, "n_fft": 400, "hop_length": 160},
    }


def test_byte_identical_images_are_one_image(dumped: Path) -> None:
    reading = read("resdavenet_hdf5", dumped)
    train = [c for c in reading.captions if c.split != "test"]
    assert len({caption.image_id for caption in train}) == 8
    assert train[0].image_id == train[8].image_id and train[1].image_id == train[9].image_id
    assert train[0].image_path == train[8].image_path


def test_frames_are_the_unpadded_columns_and_images_the_files(dumped: Path, tmp_path: Path) -> None:
    corpus = prepared(dumped, tmp_path / "out")
    lengths = {"PlacesEnglish400kTrain": [10, 20, 30, 64, 6, 7, 8, 9, 12, 13], "PlacesEnglish400kVal": [11, 21, 31]}
    assert len(corpus.captions) == 13
    for index, caption in enumerate(corpus.captions):
        name, _, row = caption.utterance_id.partition("HDF5-")
        own = spectra(lengths[name], seed=int(name.endswith("Val")))[int(row)]
        assert np.array_equal(corpus.frames(index), own[:, : lengths[name][int(row)]].T)
        assert corpus.frames(index).max() < 0, "no padding"
        assert min(pixels(read_image(io.BytesIO(corpus.image(index)))).shape[:2]) == 32
    assert corpus.description["features"]["coefficients"] == BANDS == len(corpus.description["frame_mean"])
    assert corpus.description["hours"] == pytest.approx(sum(map(sum, lengths.values())) * 0.01 / 3600)


def test_captions_without_enough_frames_or_with_nan_are_dropped(dumped: Path, tmp_path: Path) -> None:
    with h5py.File(dumped / "PlacesEnglish400kTrain_audio.hdf5", "r+") as file:
        file["melspec_len"][0] = 5
        file["melspec"][1, 3, 4] = np.nan
    corpus = prepared(dumped, tmp_path / "out")
    assert corpus.description["dropped"] == {"too short speech": 1, "unreadable speech": 1}
    assert len(corpus.captions) == 11


def test_with_files_of_test_val_is_validation(dumped: Path) -> None:
    dump(dumped, "test_seen_2020", [9, 9], [drawn(250), drawn(20)], seed=2)
    reading = read("resdavenet_hdf5", dumped)
    # drawn(20) is trained on too: the test keeps it.
    assert splits(reading) == {"train": 8, "validation": 3, "test": 2}
    assert {entry.reason for entry in reading.dropped} == {"its image is in a held-out split too"}


@pytest.mark.parametrize("named", ["/another/machine", "data", "."])
def test_files_are_found_beside_the_json_file(tmp_path: Path, named: str) -> None:
    dump(tmp_path, "train", [9, 9], [drawn(0), drawn(9)], named)
    assert len(read("resdavenet_hdf5", tmp_path).captions) == 2


def test_files_are_found_where_the_json_file_says(tmp_path: Path) -> None:
    dump(tmp_path / "far", "train", [9, 9], [drawn(0), drawn(9)], str(tmp_path / "far"))
    (tmp_path / "far" / "trainHDF5.json").rename(tmp_path / "trainHDF5.json")
    assert len(read("resdavenet_hdf5", tmp_path).captions) == 2


def test_what_is_missing_or_does_not_fit_is_named(dumped: Path, tmp_path: Path) -> None:
    assert "no JSON file" in refused(tmp_path / "nowhere")
    (dumped / "PlacesEnglish400kVal_audio.hdf5").rename(dumped / "kept.hdf5")
    assert "PlacesEnglish400kValHDF5.json" in (said := refused(dumped)) and "is not there" in said
    (dumped / "PlacesEnglish400kVal_audio.hdf5").write_text("no HDF5")
    assert "PlacesEnglish400kVal_audio.hdf5: no readable HDF5 file" in refused(dumped)
    dump(dumped, "PlacesEnglish400kVal", [9], [drawn(1), drawn(2)])
    assert "[1, 2] rows" in refused(dumped)


def test_a_name_that_tells_no_split(tmp_path: Path) -> None:
    dump(tmp_path, "places", [9], [drawn(0)])
    assert "tells no split" in refused(tmp_path)


def test_a_file_without_spectra(tmp_path: Path) -> None:
    dump(tmp_path, "train", [9], [drawn(0)])
    with h5py.File(tmp_path / "train_audio.hdf5", "w") as file:
        file["other"] = [1]
    assert "no dataset melspec" in refused(tmp_path)


def test_other_json_files_are_left_alone(dumped: Path) -> None:
    (dumped / "notes.json").write_text("[1, 2]")
    (dumped / "broken.json").write_text("{")
    assert len(read("resdavenet_hdf5", dumped).captions) == 13


def test_a_pair_learns_from_imported_frames(dumped: Path, tmp_path: Path) -> None:
    from sia.data.loader import PairDataset, collate

    corpus = prepared(dumped, tmp_path / "out")
    settings = tiny_corpus.experiment(**{"model.frame_features": BANDS, "data.standardise_frames": True})
    batch = collate([PairDataset(corpus, settings)[(position, 0)] for position in range(3)])
    assert batch.frames.shape[2] == BANDS and batch.frames.isfinite().all()
