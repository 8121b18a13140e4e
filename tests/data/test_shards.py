import fcntl
import hashlib
import os
import zlib
from pathlib import Path

import h5py
import numpy as np
import pytest

from sia.data.manifest import Dropped, SpokenCaption
from sia.data.shards import CHECKSUM, LAYOUT_VERSION, ShardReader, ShardWriter
from sia.errors import UserError

IMAGES = [b"first image", b"second\x00image"]


def caption(number: int, image_id: str = "") -> SpokenCaption:
    image_id = image_id or f"image{number}"
    return SpokenCaption(f"utterance{number}", image_id, f"{number}.wav", f"{image_id}.png", "train", text="ein Frösch")


def frames(length: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(length, 40)).astype(np.float32)


def filled() -> ShardWriter:
    """Three captions of two images, and one that was dropped."""
    writer = ShardWriter({"plan": {"name": "tiny"}, "sums": [1.5, 2.0]})
    writer.add(caption(0), frames(7, 0), IMAGES[0])
    writer.add(caption(1, "image0"), frames(30, 1), IMAGES[0])
    writer.add(caption(2), frames(6, 2), IMAGES[1])
    writer.dropped.append(Dropped("utterance3", "unreadable speech", "3.wav"))
    return writer


@pytest.fixture
def written(tmp_path: Path) -> Path:
    filled().write(tmp_path / "shards" / "00000.h5")
    return tmp_path / "shards" / "00000.h5"


def refused(path: Path) -> str:
    """The one line that a reader refuses the shard with."""
    with pytest.raises(UserError) as caught:
        ShardReader(path)
    assert str(path) in str(caught.value) and "jobs/prepare.py" in str(caught.value)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_what_was_written_is_read_while_somebody_holds_a_lock_on_it(written: Path) -> None:
    with open(written, "r+b") as held, ShardReader(written) as reader:
        fcntl.flock(held, fcntl.LOCK_EX)
        reader.check()
        for row, (length, seed) in enumerate([(7, 0), (30, 1), (6, 2)]):
            assert np.array_equal(reader.frames.read(row), frames(length, seed))
        assert reader.frames.read(0).dtype == np.float32
        assert [reader.images.read(row).tobytes() for row in (0, 1)] == IMAGES
        assert reader.strings("image_ids") == ["image0", "image2"] and len(reader.strings("dropped")) == 1
        assert reader.captions() == [caption(0), caption(1, "image0"), caption(2)]
        assert (reader.attribute("plan"), reader.attribute("sums")) == ({"name": "tiny"}, [1.5, 2.0])
        assert reader.attribute("nothing") is None


def test_a_shard_without_captions_and_one_of_narrow_frames(tmp_path: Path) -> None:
    ShardWriter({}).write(tmp_path / "empty.h5")
    with ShardReader(tmp_path / "empty.h5") as reader:
        reader.check()
        assert reader.captions() == [] and len(reader.frames.crcs) == 0
    writer = ShardWriter({})
    writer.add(caption(0), frames(7)[:, :13], b"image")
    writer.write(tmp_path / "narrow.h5")
    assert np.array_equal(ShardReader(tmp_path / "narrow.h5").frames.read(0), frames(7)[:, :13])


def test_a_write_that_raises_leaves_what_was_there(written: Path) -> None:
    before = written.read_bytes()
    uneven, wrong = filled(), filled()
    uneven.frames[1] = frames(30)[:, :39]  # cannot be joined with the others
    wrong.attributes["wrong"] = object()  # no JSON
    for writer, error in ((uneven, ValueError), (wrong, TypeError)):
        with pytest.raises(error):
            writer.write(written)
        assert written.read_bytes() == before and os.listdir(written.parent) == [written.name]


def test_the_checksum_is_that_of_all_content(written: Path) -> None:
    """A naive one beside it: attributes and datasets by name, CRCs standing for frames and images."""
    with h5py.File(written) as shard:
        told = dict(shard.attrs)
        version = np.int64(told.pop("layout_version")).tobytes()
        written_sum = told.pop(CHECKSUM)
        content = b"layout_version=" + version + b"\n"
        content += b"".join(name.encode() + b"=" + value + b"\n" for name, value in sorted(told.items()))
        for name in sorted(shard):
            content += f"{name} {shard[name].dtype.str} {shard[name].shape}\n".encode()
            content += b"" if name in ("frames", "image_bytes") else shard[name][:].tobytes()
        assert shard["frame_crcs"][1] == zlib.crc32(frames(30, 1).tobytes())
        assert shard["image_crcs"][:].tolist() == [zlib.crc32(image) for image in IMAGES]
    assert written_sum.decode() == ShardReader(written).checksum == hashlib.sha256(content).hexdigest()


def test_another_layout_and_a_file_of_somebody_else_are_refused(written: Path, tmp_path: Path) -> None:
    with h5py.File(written, "r+") as shard:
        shard.attrs["layout_version"] = LAYOUT_VERSION + 1
    assert f"layout version {LAYOUT_VERSION + 1}" in refused(written)
    with h5py.File(tmp_path / "other.h5", "w") as other:
        other["data"] = [1, 2]
    assert "layout version None" in refused(tmp_path / "other.h5")


@pytest.mark.parametrize("share", [0.0, 0.5, 0.99, None])
def test_a_truncated_or_missing_shard_is_refused(written: Path, share: float | None) -> None:
    if share is None:
        written.unlink()
    else:
        os.truncate(written, int(written.stat().st_size * share))
    assert ("missing" if share is None else "not a readable HDF5 file") in refused(written)
