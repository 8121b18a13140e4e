import fcntl
import hashlib
import os
import zlib
from pathlib import Path

import h5py
import numpy as np
import pytest

from sia.data.manifest import SpokenCaption
from sia.data.shards import CHECKSUM, LAYOUT_VERSION, ShardReader, ShardWriter, checksum
from sia.errors import UserError


def caption(number: int, image_id: str = "") -> SpokenCaption:
    image_id = image_id or f"image{number}"
    return SpokenCaption(f"utterance{number}", image_id, f"{number}.wav", f"{image_id}.png", "train", text="ein Frösch")


def frames(length: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(length, 40)).astype(np.float32)


def filled() -> ShardWriter:
    """Three captions of two images, and one that was dropped."""
    writer = ShardWriter({"plan": {"name": "tiny"}, "sums": [1.5, 2.0]})
    writer.add(caption(0), frames(7, 0), b"first image")
    writer.add(caption(1, "image0"), frames(30, 1), b"first image")
    writer.add(caption(2), frames(6, 2), b"second\x00image")
    writer.drop("utterance3", "unreadable speech", "3.wav")
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


def test_what_was_written_is_read(written: Path) -> None:
    reader = ShardReader(written)
    for row, (length, seed) in enumerate([(7, 0), (30, 1), (6, 2)]):
        assert np.array_equal(reader.frames(row, "a"), frames(length, seed))
        assert reader.frames(row, "a").dtype == np.float32
    assert reader.strings("image_ids") == ["image0", "image2"]
    assert [reader.image(0, "a"), reader.image(1, "a")] == [b"first image", b"second\x00image"]
    assert (reader.attribute("plan"), reader.attribute("sums")) == ({"name": "tiny"}, [1.5, 2.0])
    assert reader.attribute("nothing") is None
    assert "Frösch" in reader.strings("captions")[0] or "\\u00f6" in reader.strings("captions")[0]
    assert len(reader.strings("dropped")) == 1
    reader.close()


def test_a_shard_without_captions(tmp_path: Path) -> None:
    writer = ShardWriter({})
    writer.drop("a", "too short speech", "")
    writer.write(tmp_path / "empty.h5")
    reader = ShardReader(tmp_path / "empty.h5")
    assert reader.strings("captions") == [] and len(reader.strings("dropped")) == 1


def test_digests_tell_contents_apart_and_not_places(tmp_path: Path) -> None:
    def digest(record: SpokenCaption, content: np.ndarray, image: bytes) -> str:
        writer = ShardWriter({})
        writer.add(record, content, image)
        writer.write(tmp_path / "one.h5")
        return ShardReader(tmp_path / "one.h5").strings("digests")[0]

    first = digest(caption(0), frames(7), b"image")
    moved = SpokenCaption("utterance0", "image0", "/elsewhere/0.wav", "/elsewhere/image0.png", "train")
    assert digest(moved, frames(7), b"image") == first
    others = [
        digest(caption(1, "image0"), frames(7), b"image"),
        digest(caption(0, "image1"), frames(7), b"image"),
        digest(caption(0), frames(7, seed=1), b"image"),
        digest(caption(0), frames(7), b"another"),
    ]
    assert len({first, *others}) == 5


def test_a_write_that_raises_leaves_nothing(tmp_path: Path) -> None:
    writer = filled()
    writer.frames[1] = frames(30)[:, :39]  # cannot be joined with the others
    with pytest.raises(ValueError):
        writer.write(tmp_path / "shard.h5")
    assert os.listdir(tmp_path) == []


def test_a_write_that_raises_keeps_the_file_of_before(written: Path) -> None:
    before = written.read_bytes()
    writer = filled()
    writer.attributes["wrong"] = object()  # no JSON
    with pytest.raises(TypeError):
        writer.write(written)
    assert written.read_bytes() == before and os.listdir(written.parent) == [written.name]


def test_the_checksum_is_that_of_all_content(written: Path, tmp_path: Path) -> None:
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
        assert shard["image_crcs"][:].tolist() == [zlib.crc32(image) for image in (b"first image", b"second\x00image")]
        assert written_sum.decode() == checksum(shard.attrs, shard) == hashlib.sha256(content).hexdigest()


def test_the_checksum_tells_contents_apart(tmp_path: Path) -> None:
    def of(writer: ShardWriter) -> str:
        writer.write(tmp_path / "one.h5")
        return ShardReader(tmp_path / "one.h5").checksum

    others = [filled() for _ in range(4)]
    others[0].frames[0][0, 0] += 1
    others[1].images["image2"] = b"another"
    others[2].attributes["sums"] = [1.5, 2.1]
    others[3].drop("utterance4", "unreadable speech", "")
    assert of(filled()) == of(filled())
    assert len({of(filled()), *map(of, others)}) == 5


def test_a_shard_is_read_while_somebody_holds_a_lock_on_it(written: Path) -> None:
    with open(written, "r+b") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert ShardReader(written).strings("image_ids") == ["image0", "image2"]


def test_frames_of_another_width(tmp_path: Path) -> None:
    writer = ShardWriter({})
    writer.add(caption(0), frames(7)[:, :13], b"image")
    writer.write(tmp_path / "narrow.h5")
    assert np.array_equal(ShardReader(tmp_path / "narrow.h5").frames(0, "a"), frames(7)[:, :13])


def test_another_layout_version_is_refused(written: Path) -> None:
    with h5py.File(written, "r+") as shard:
        shard.attrs["layout_version"] = LAYOUT_VERSION + 1
    assert f"layout version {LAYOUT_VERSION + 1}" in refused(written)


def test_a_file_of_somebody_else_is_refused(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "other.h5", "w") as other:
        other["data"] = [1, 2]
    assert "layout version None" in refused(tmp_path / "other.h5")


@pytest.mark.parametrize("share", [0.0, 0.2, 0.5, 0.99])
def test_a_truncated_shard_is_refused(written: Path, share: float) -> None:
    os.truncate(written, int(written.stat().st_size * share))
    assert "not a readable HDF5 file" in refused(written)


def test_a_missing_shard_is_refused(tmp_path: Path) -> None:
    assert "missing" in refused(tmp_path / "00007.h5")
