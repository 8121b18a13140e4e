"""Damage done to a prepared corpus is named: the file, and the caption where one can be told."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import tiny_corpus

from sia.atomic import read_json, write_json
from sia.data.prepared_corpus import PreparedCorpus
from sia.data.shards import shard_path
from sia.data.verify import verify_corpus
from sia.errors import UserError


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


def test_a_whole_corpus_is_all_good(whole: PreparedCorpus) -> None:
    told: list[str] = []
    line = verify_corpus(whole.folder, told.append, processes=0)
    frames = whole.description.num_frames
    assert line == f"3 shards, 16 captions, 12 images, {frames:,} frames: all good" and not told


def test_a_copy_without_its_plan_is_verified(copy: Path) -> None:
    """As a node's is."""
    (copy / "plan.json").unlink()
    (copy / "plan" / "dropped.jsonl").unlink()
    assert "all good" in verify_corpus(copy, processes=0)
    description = read_json(copy / "corpus.json") or {}
    write_json(copy / "corpus.json", {**description, "frame_mean": [0.0] * 40})
    assert ["its frame_mean is not" in line for line in faults(copy)] == [True]


def test_a_flipped_byte_in_frames_names_its_caption(whole: PreparedCorpus, copy: Path) -> None:
    with h5py.File(shard_path(copy, 0)) as file:
        offset = int(file["frame_offsets"][2])
    path = change(copy, 0, "frames", flip(offset * 160 + 7))
    name = next(c.utterance_id for c in whole.captions if (c.shard, c.row) == (0, 2))
    told = faults(copy)
    assert len(told) == 1 and told[0].startswith(f"{path}: caption {name!r}")
    path.unlink()
    tiny_corpus.prepare(whole.folder.parent / "raw", copy, num_shards=3)
    assert "all good" in verify_corpus(copy, processes=0), "the cure that is told"


def test_a_flipped_byte_in_an_image_names_its_captions(whole: PreparedCorpus, copy: Path) -> None:
    with h5py.File(shard_path(copy, 1)) as file:
        middle = int(file["image_offsets"][1] + file["image_offsets"][2]) // 2
    path = change(copy, 1, "image_bytes", flip(middle))
    names = [c.utterance_id for c in whole.captions if (c.shard, c.image_row) == (1, 1)]
    told = faults(copy)
    assert len(told) == len(names) > 0
    assert all(line.startswith(f"{path}: caption {name!r}") for line, name in zip(told, names, strict=True))


@pytest.mark.parametrize(
    "dataset", ["frame_offsets", "image_offsets", "frame_crcs", "image_crcs", "captions", "digests", "image_ids"]
)
def test_a_flipped_byte_in_what_a_shard_tells_of_its_rows_is_named(copy: Path, dataset: str) -> None:
    path = change(copy, 0, dataset, flip(8))
    told = faults(copy)
    assert all(line.startswith(f"{path}: ") for line in told)
    assert "offsets" not in dataset or "caption" in told[0]


@pytest.mark.parametrize("value", [-1, 2**40])
def test_offsets_far_off_are_named(whole: PreparedCorpus, copy: Path, value: int) -> None:
    def alter(dataset: h5py.Dataset) -> None:
        dataset[1] = value

    path = change(copy, 0, "frame_offsets", alter)
    name = next(c.utterance_id for c in whole.captions if (c.shard, c.row) == (0, 0))
    assert faults(copy)[0].startswith(f"{path}: caption {name!r} cannot be read")


def test_missing_and_truncated_shards_and_a_changed_attribute_are_named(copy: Path) -> None:
    missing, truncated, changed = (shard_path(copy, number) for number in range(3))
    missing.unlink()
    os.truncate(truncated, truncated.stat().st_size - 1)
    with h5py.File(changed, "r+") as file:
        file.attrs["frame_sums"] = "[]"
    told = faults(copy)
    assert len(told) == 3
    assert told[0].startswith(f"{missing}: shard is missing")
    assert told[1].startswith(f"{truncated}: shard is not a readable HDF5 file")
    assert told[2].startswith(f"{changed}: checksum")


@pytest.mark.slow
def test_processes_name_the_same_faults(copy: Path) -> None:
    shard_path(copy, 0).unlink()
    change(copy, 2, "frames", flip(0))
    assert sorted(faults(copy)) == sorted(faults(copy, processes=2))


@pytest.mark.parametrize("line", [0, 7, 15])
def test_a_line_taken_out_of_captions_is_named(whole: PreparedCorpus, copy: Path, line: int) -> None:
    lines = (copy / "captions.jsonl").read_text().splitlines(keepends=True)
    (copy / "captions.jsonl").write_text("".join(lines[:line] + lines[line + 1 :]))
    name = whole.captions[line].utterance_id
    assert faults(copy) == [f"{copy / 'captions.jsonl'}: the record of {name!r} is not that of its shard"]


def test_lines_that_were_changed_or_added_and_an_index_of_others_are_named(whole: PreparedCorpus, copy: Path) -> None:
    path = copy / "captions.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join([*lines[:3], json.dumps({**json.loads(lines[3]), "num_frames": 7}) + "\n", *lines[4:]]))
    np.save(copy / "captions.npy", np.load(copy / "captions.npy")[:-1])
    (copy / "dropped.jsonl").unlink()
    record, index, dropped = faults(copy)
    assert repr(whole.captions[3].utterance_id) in record and str(copy / "captions.npy") in index
    assert "dropped.jsonl: missing" in dropped
    path.write_text("".join([*lines, "{}\n"]))
    assert faults(copy)[0] == f"{path}: missing, or not what the shards hold together"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(("frame_mean", [0.0] * 40), ("pixel_std", [1.0] * 3), ("hours", 1.0), ("held_out", "captions")),
        *(("name", "other"), ("num_images", 13), ("identity", "0"), ("num_shards", 2)),
        ("checksums", {"index": "0", "shards": []}),
    ],
)
def test_a_description_that_was_edited_is_named(copy: Path, key: str, value: object) -> None:
    """The statistics normalise every input: nobody would notice them otherwise."""
    description = read_json(copy / "corpus.json") or {}
    write_json(copy / "corpus.json", {**description, key: value})
    assert [f"its {key} is not that of the shards" in line for line in faults(copy)] == [True]


@pytest.mark.parametrize("name", ["corpus.json", "plan.json"])
def test_a_damaged_record_is_named_in_one_line(copy: Path, name: str) -> None:
    (copy / name).write_text("{")
    with pytest.raises(UserError, match=name) as caught:
        verify_corpus(copy, processes=0)
    assert "\n" not in str(caught.value)
