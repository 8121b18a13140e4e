"""Damage done to a prepared corpus is named: the file, and the caption where one can be told."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import tiny_corpus
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sia.atomic import read_json, write_json
from sia.data.prepared_corpus import PreparedCorpus, shard_path
from sia.data.verify import verify_corpus
from sia.errors import UserError


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> PreparedCorpus:
    """16 captions of 12 images in three shards."""
    root = tmp_path_factory.mktemp("whole")
    tiny_corpus.write_corpus(root / "raw", kinds=2)
    return tiny_corpus.prepare(root / "raw", root / "out", num_shards=3)


@pytest.fixture
def damaged(whole: PreparedCorpus, tmp_path: Path) -> Path:
    """A copy to be damaged."""
    return Path(shutil.copytree(whole.folder, tmp_path / "copy"))


def described(folder: Path) -> dict[str, Any]:
    return read_json(folder / "corpus.json") or {}


def faults(folder: Path, processes: int = 0) -> list[str]:
    """What is told; the error's one line counts it."""
    told: list[str] = []
    with pytest.raises(UserError) as caught:
        verify_corpus(folder, told.append, processes)
    assert f"{folder}: {len(told)} fault" in str(caught.value) and "jobs/prepare.py" in str(caught.value)
    assert not any("\n" in line for line in [*told, str(caught.value)])
    return told


def change(folder: Path, shard: int, dataset: str, alter: Callable[[h5py.Dataset], None]) -> Path:
    with h5py.File(shard_path(folder, shard), "r+") as file:
        alter(file[dataset])
    return shard_path(folder, shard)


def flip(position: int) -> Callable[[h5py.Dataset], None]:
    """One bit of one of a dataset's bytes."""

    def flipped(dataset: h5py.Dataset) -> None:
        values = dataset[:]
        values.reshape(-1).view(np.uint8)[position] ^= 1
        dataset[:] = values

    return flipped


@pytest.mark.parametrize("processes", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_a_whole_corpus_is_all_good(whole: PreparedCorpus, processes: int) -> None:
    told: list[str] = []
    line = verify_corpus(whole.folder, told.append, processes)
    frames = whole.description["num_frames"]
    assert line == f"3 shards, 16 captions, 12 images, {frames:,} frames: all good" and not told


def test_a_flipped_byte_in_frames_names_its_caption(whole: PreparedCorpus, damaged: Path) -> None:
    with h5py.File(shard_path(damaged, 0)) as file:
        offset = int(file["frame_offsets"][2])
    path = change(damaged, 0, "frames", flip(offset * 160 + 7))
    name = next(c.utterance_id for c in whole.captions if (c.shard, c.row) == (0, 2))
    told = faults(damaged)
    assert len(told) == 1 and told[0].startswith(f"{path}: caption {name!r}")


def test_a_flipped_byte_in_an_image_names_its_captions(whole: PreparedCorpus, damaged: Path) -> None:
    with h5py.File(shard_path(damaged, 1)) as file:
        middle = int(file["image_offsets"][1] + file["image_offsets"][2]) // 2
    path = change(damaged, 1, "image_bytes", flip(middle))
    names = [c.utterance_id for c in whole.captions if (c.shard, c.image_row) == (1, 1)]
    told = faults(damaged)
    assert [any(repr(name) in line for line in told) for name in names] == [True] * len(names) and len(names) > 0
    assert len(told) == len(names) and all(str(path) in line for line in told)


@pytest.mark.parametrize("dataset", ["frame_offsets", "image_offsets"])
def test_a_flipped_byte_in_offsets_is_named(damaged: Path, dataset: str) -> None:
    path = change(damaged, 2, dataset, flip(8))
    told = faults(damaged)
    assert str(path) in told[0] and ("caption" in told[0] or "image" in told[0])


@pytest.mark.parametrize("value", [-1, 2**40])
def test_offsets_far_off_are_named(damaged: Path, value: int) -> None:
    def alter(dataset: h5py.Dataset) -> None:
        dataset[1] = value

    path = change(damaged, 0, "frame_offsets", alter)
    told = faults(damaged)
    assert all(str(path) in line for line in told) and any("offset of caption" in line for line in told)


def test_a_nan_names_its_caption(whole: PreparedCorpus, damaged: Path) -> None:
    def alter(dataset: h5py.Dataset) -> None:
        dataset[0, 3] = np.nan

    change(damaged, 0, "frames", alter)
    name = next(c.utterance_id for c in whole.captions if (c.shard, c.row) == (0, 0))
    assert any(repr(name) in line and "no numbers" in line for line in faults(damaged))


def test_missing_and_truncated_shards_are_named(damaged: Path) -> None:
    shard_path(damaged, 0).unlink()
    os.truncate(shard_path(damaged, 1), shard_path(damaged, 1).stat().st_size - 1)
    told = faults(damaged)
    assert len(told) == 2
    assert told[0].startswith(f"{shard_path(damaged, 0)}: shard is missing")
    assert told[1].startswith(f"{shard_path(damaged, 1)}: shard is not a readable HDF5 file")


@pytest.mark.slow
def test_processes_name_the_same_faults(damaged: Path) -> None:
    shard_path(damaged, 0).unlink()
    change(damaged, 2, "frames", flip(0))
    assert sorted(faults(damaged)) == sorted(faults(damaged, processes=2))


@pytest.mark.parametrize("line", [0, 7, 15])
def test_a_line_taken_out_of_captions_is_named(whole: PreparedCorpus, damaged: Path, line: int) -> None:
    lines = (damaged / "captions.jsonl").read_text().splitlines(keepends=True)
    (damaged / "captions.jsonl").write_text("".join(lines[:line] + lines[line + 1 :]))
    caption = whole.captions[line]
    told = faults(damaged)
    missing = f"{shard_path(damaged, caption.shard)}: caption {caption.utterance_id!r} has no line in captions.jsonl"
    assert missing in told
    assert any("num_captions" in one for one in told) and any("captions.npy" in one for one in told)


def test_a_line_that_was_changed_is_named(whole: PreparedCorpus, damaged: Path) -> None:
    rows = [json.loads(line) for line in (damaged / "captions.jsonl").read_text().splitlines()]
    rows[3]["num_frames"] += 1
    (damaged / "captions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert any(repr(whole.captions[3].utterance_id) in line and "frames" in line for line in faults(damaged))


def test_a_line_that_is_no_caption(damaged: Path) -> None:
    with open(damaged / "captions.jsonl", "a") as lines:
        lines.write("{}\n")
    with pytest.raises(UserError, match=r"captions\.jsonl, line 17"):
        verify_corpus(damaged, processes=0)


def test_another_corpuss_description(damaged: Path) -> None:
    description = described(damaged)
    write_json(damaged / "corpus.json", {**description, "num_images": 13})
    assert "num_images is 12 there, 13 in corpus.json" in faults(damaged)[0]
    write_json(damaged / "corpus.json", {**description, "identity": "0"})
    assert "its identity is not" in faults(damaged)[0]
    write_json(damaged / "corpus.json", {**description, "num_shards": 2})
    assert "captions of shard 2" in faults(damaged)[0]


def test_a_key_that_is_missing_is_named(damaged: Path) -> None:
    description = described(damaged)
    del description["num_shards"]
    write_json(damaged / "corpus.json", description)
    with pytest.raises(UserError, match="no num_shards"):
        verify_corpus(damaged, processes=0)


def test_an_attribute_that_was_changed(damaged: Path) -> None:
    with h5py.File(shard_path(damaged, 1), "r+") as file:
        file.attrs["frame_sums"] = "[]"
    told = faults(damaged)
    assert len(told) == 1 and told[0].startswith(f"{shard_path(damaged, 1)}: checksum")


def test_preparing_again_after_the_named_shard_is_deleted_mends_it(whole: PreparedCorpus, damaged: Path) -> None:
    change(damaged, 1, "frames", flip(0)).unlink()
    tiny_corpus.prepare(whole.folder.parent / "raw", damaged, num_shards=3)
    assert "all good" in verify_corpus(damaged, processes=0)


@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_no_byte_of_frames_images_or_offsets_can_change_unseen(whole: PreparedCorpus, data: st.DataObject) -> None:
    folder = whole.folder.parent / "flipped"
    if not folder.exists():
        shutil.copytree(whole.folder, folder)
    dataset = data.draw(st.sampled_from(["frames", "frame_offsets", "image_bytes", "image_offsets"]))
    with h5py.File(shard_path(folder, 0)) as file:
        size = file[dataset].size * file[dataset].dtype.itemsize
    position = data.draw(st.integers(0, size - 1))
    path = change(folder, 0, dataset, flip(position))
    try:
        assert any(line.startswith(f"{path}: ") for line in faults(folder))
    finally:
        change(folder, 0, dataset, flip(position))
    assert "all good" in verify_corpus(folder, processes=0)
