import os
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sia.data.hdf5_path import Hdf5Path, parse, read_bytes, read_frames
from sia.errors import UserError

WORD = st.text("abcxyz019_-./ :", min_size=1)


@pytest.fixture
def file(tmp_path: Path) -> str:
    with h5py.File(tmp_path / "a.h5", "w") as written:
        written["group/frames"] = np.arange(12, dtype=np.float64).reshape(4, 3)
        written["whole"] = np.arange(24, dtype=np.float32).reshape(2, 4, 3)
        written["padded"] = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
        written["padded_len"] = [2, 4]
        written["text"] = "hello"
        image = written.create_dataset("image", (1,), dtype=h5py.special_dtype(vlen=np.dtype("uint8")))
        image[0] = np.frombuffer(b"a file", np.uint8)
    return str(tmp_path / "a.h5")


@settings(max_examples=40)
@given(WORD, WORD, st.none() | st.integers(0, 10**9))
def test_a_path_is_read_as_it_was_written(name: str, dataset: str, row: int | None) -> None:
    place = Hdf5Path(f"{name.replace('::', '')}.h5", dataset.replace(":", ""), row)
    if place.dataset and not place.file.endswith(":"):
        assert parse(str(place)) == place


@pytest.mark.parametrize("path", ["a.wav", "/b/c.h5", "", "::", "a::", "a::b[x]", "a::b[1"])
def test_plain_files_are_no_such_paths(path: str) -> None:
    assert parse(path) is None


def test_frames_of_a_dataset_and_of_a_row_without_padding_and_bytes_of_a_file(file: str) -> None:
    whole = read_frames(f"{file}::group/frames")
    assert whole.dtype == np.float32 and whole.tolist() == np.arange(12).reshape(4, 3).tolist()
    assert read_frames(f"{file}::/group/frames").tolist() == whole.tolist()
    assert read_frames(f"{file}::whole[1]").tolist() == np.arange(12, 24).reshape(4, 3).tolist()
    assert read_frames(f"{file}::padded[0]").tolist() == [[0, 4, 8], [1, 5, 9]]
    assert read_frames(f"{file}::padded[1]").shape == (4, 3)
    assert read_bytes(f"{file}::image[0]") == b"a file"


@pytest.mark.parametrize(
    "inside", ["nothing", "text", "whole", "padded[2]", "image[0]", "group", "image", "padded_len"]
)
def test_what_holds_no_frames_is_named(file: str, inside: str) -> None:
    with pytest.raises(UserError, match="mend") as caught:
        read_frames(f"{file}::{inside}")
    assert f"{file}::{inside}" in str(caught.value) and "\n" not in str(caught.value)


def test_what_holds_no_bytes_and_missing_files_are_named(file: str) -> None:
    for path in (f"{file}::whole[0]", f"{file}x::image[0]", file):
        with pytest.raises(UserError, match=path.split("::")[0]):
            read_bytes(path)


def test_a_file_that_was_written_anew_is_read_anew(file: str) -> None:
    assert read_frames(f"{file}::group/frames")[0, 0] == 0
    os.unlink(file)
    with h5py.File(file, "w") as written:
        written["group/frames"] = np.ones((2, 2))
    assert read_frames(f"{file}::group/frames").tolist() == [[1, 1], [1, 1]]


@pytest.fixture
def leaving(tmp_path: Path) -> str:
    """A file of whose names each leads elsewhere."""
    (tmp_path / "secret.raw").write_bytes(np.zeros(12, np.float32).tobytes())
    with h5py.File(tmp_path / "secret.h5", "w") as secret:
        secret["frames"] = np.zeros((4, 3), np.float32)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["own"] = np.zeros((4, 3), np.float32)
        file["soft"] = h5py.SoftLink("/own")
        file["external"] = h5py.ExternalLink("secret.h5", "/frames")
        file["group/below"] = h5py.ExternalLink("secret.h5", "/")
        file.create_dataset("raw", (4, 3), np.float32, external=[(str(tmp_path / "secret.raw"), 0, 48)])
        layout = h5py.VirtualLayout((4, 3), np.float32)
        layout[:] = h5py.VirtualSource("secret.h5", "frames", (4, 3))
        file.create_virtual_dataset("virtual", layout)
    return str(tmp_path / "a.h5")


@pytest.mark.parametrize("name", ["soft", "external", "group/below/frames", "raw", "virtual"])
def test_what_leads_out_of_the_file_is_refused(leaving: str, name: str) -> None:
    assert read_frames(f"{leaving}::own").shape == (4, 3)
    with pytest.raises(UserError, match=r"is a link to somewhere else|lie in another file"):
        read_frames(f"{leaving}::{name}")


@pytest.mark.parametrize(
    ("shape", "chunks", "inside"),
    [((2**20, 2**13), (64, 64), ""), ((3, 2**28), (1, 64), "[1]"), ((4, 2**27), (4, 2**27), "[1]")],
    ids=["rows", "columns", "chunks"],
)
def test_a_small_file_that_asks_for_gigabytes_is_refused(
    tmp_path: Path, shape: tuple[int, ...], chunks: tuple[int, ...], inside: str
) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("bomb", shape, np.float32, chunks=chunks, compression="gzip")
    assert (tmp_path / "a.h5").stat().st_size < 10_000
    with pytest.raises(UserError, match="it asks for"):
        read_frames(f"{tmp_path}/a.h5::bomb{inside}")
