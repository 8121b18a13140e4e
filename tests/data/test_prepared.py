"""A prepared corpus as it was written, or refused: each line, row and file that training reads."""

import itertools
import json
import os
import pickle
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import h5py
import numpy as np
import pytest
import tiny_corpus
from readings import moved
from torch.utils.data import DataLoader

from sia.atomic import read_json, write_json
from sia.config import Data, Model
from sia.data import shards
from sia.data.caption_index import INDEX, PlacedCaption, PlacedCaptions, index_checksum, index_of, lines_of
from sia.data.loader import PairDataset
from sia.data.prepared_corpus import PreparedCorpus, check_features, check_inputs
from sia.data.shards import shard_path
from sia.errors import UserError


def refused(folder: Path) -> str:
    with pytest.raises(UserError) as caught:
        PreparedCorpus.open(folder)
    assert str(folder) in str(caught.value) and "\n" not in str(caught.value)
    return str(caught.value)


def read_all(corpus: PreparedCorpus) -> Iterator[object]:
    """Every number and byte that training takes from a corpus."""
    yield corpus.description
    for index, caption in enumerate(corpus.captions):
        yield caption, corpus.frames(index).tobytes(), corpus.image(index)


def test_splits_partition_the_captions(whole: PreparedCorpus) -> None:
    splits = {name: whole.split(name) for name in ("train", "validation", "test")}
    assert {name: len(indices) for name, indices in splits.items()} == {"train": 8, "validation": 4, "test": 4}
    assert sorted(itertools.chain(*splits.values())) == list(range(16))
    assert all(whole.captions[index].split == name for name, indices in splits.items() for index in indices)
    with pytest.raises(UserError, match=r"split 'dev'.*train, validation, test"):
        whole.split("dev")


def test_captions_of_an_image_share_its_bytes_and_its_place_in_the_pool(whole: PreparedCorpus) -> None:
    train, by_image = whole.split("train"), dict[str, list[int]]()
    for index in train:
        by_image.setdefault(whole.captions[index].image_id, []).append(index)
    contents = [{whole.image(index) for index in indices} for indices in by_image.values()]
    assert [len(content) for content in contents] == [1] * 4 and len(set.union(*contents)) == 4
    assert {len(indices) for indices in by_image.values()} == {2}
    assert whole.image_pool(train) == [indices[0] for indices in by_image.values()]


def test_captions_are_those_of_captions_jsonl(whole: PreparedCorpus) -> None:
    """The index beside a naive reading of every line."""
    rows = [json.loads(line) for line in (whole.folder / "captions.jsonl").read_text().splitlines()]
    assert [asdict(caption) for caption in whole.captions] == rows and len(whole.captions) == 16
    assert whole.captions[-1] == whole.captions[15]
    assert [whole.captions.utterance_id(index) for index in range(16)] == [row["utterance_id"] for row in rows]
    for outside in (16, -17):
        with pytest.raises(IndexError):
            whole.captions[outside]
    for name in ("shard", "row", "image_row", "num_frames"):
        assert whole.captions.column(name).tolist() == [row[name] for row in rows]
    numbers = dict(zip((row["image_id"] for row in rows), whole.captions.column("image").tolist(), strict=True))
    assert sorted(numbers.values()) == list(range(12))
    lengths = [whole.frames(index).shape for index in range(16)]
    assert lengths == [(row["num_frames"], 40) for row in rows]
    assert whole.description.num_frames == sum(length for length, _ in lengths)
    assert whole.description.hours == pytest.approx(whole.description.num_frames * 0.0125 / 3600)


def test_names_in_any_script(tmp_path: Path) -> None:
    caption = PlacedCaption('ütter\u2028"ance', "бильд", "test", 0, 0, 0, 6, text='zwei\nZeilen "日本"')
    lines = lines_of([caption, caption])
    index = index_of([caption, caption], lines)
    (tmp_path / "captions.jsonl").write_bytes(b"".join(lines))
    (tmp_path / "captions.npy").write_bytes(index)
    captions = PlacedCaptions(tmp_path, index_checksum(index))
    assert list(captions) == [caption, caption] and captions.utterance_id(1) == caption.utterance_id


def test_a_copy_for_a_worker_is_small_and_opens_its_files_itself(whole: PreparedCorpus) -> None:
    expected = list(read_all(whole))
    whole.split("train")
    pickled = pickle.dumps(whole)
    assert len(pickled) < 6000
    assert list(read_all(pickle.loads(pickled))) == expected


def test_few_files_are_kept_open(whole: PreparedCorpus, copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def opened() -> list[str]:
        links = [f"/proc/self/fd/{number}" for number in os.listdir("/proc/self/fd")]
        return [file for file in (os.path.realpath(link) for link in links) if file.startswith(str(copy))]

    monkeypatch.setattr(shards, "_opened", shards.lru_cache(2)(shards._opened.__wrapped__))
    assert list(read_all(PreparedCorpus.open(copy))) == list(read_all(whole))
    assert len([file for file in opened() if file.endswith(".h5")]) <= 2


@pytest.mark.parametrize("damage", ["missing", "without lines", "other layout", "another corpus's"])
def test_an_index_that_does_not_fit_is_refused(copy: Path, damage: str) -> None:
    if damage == "missing":
        (copy / "captions.npy").unlink()
    elif damage == "without lines":
        (copy / "captions.jsonl").unlink()
    elif damage == "other layout":
        np.save(copy / "captions.npy", np.zeros(16, INDEX.descr[:3]))
    else:
        with open(copy / "captions.jsonl", "a") as lines:
            lines.write("{}\n")
    assert "captions.npy" in refused(copy)


def test_a_description_that_is_missing_or_damaged_is_refused(copy: Path, tmp_path: Path) -> None:
    assert "no prepared corpus" in refused(tmp_path / "nowhere")
    described = read_json(copy / "corpus.json") or {}
    del described["frame_mean"]
    write_json(copy / "corpus.json", described)
    assert "corpus.json" in refused(copy) and "frame_mean" in refused(copy)
    (copy / "corpus.json").unlink()
    assert "not finished" in refused(copy)


def flip(path: Path, place: int) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("dataset", "place"),
    [("frames", 40), ("image_bytes", 40), ("frame_offsets", 8), ("frame_crcs", 0), ("image_offsets", 8)],
)
def test_a_bit_of_a_row_or_its_place_names_shard_caption_and_cure(copy: Path, dataset: str, place: int) -> None:
    path = shard_path(copy, 0)
    with h5py.File(path) as file:
        start = int(file[dataset].id.get_offset())
    flip(path, start + place)
    corpus = PreparedCorpus.open(copy)
    first = next(index for index, caption in enumerate(corpus.captions) if (caption.shard, caption.row) == (0, 0))
    read = corpus.image if dataset.startswith("image") else corpus.frames
    with pytest.raises(UserError, match=r"--verify.*delete") as caught:
        read(first)
    assert str(path) in str(caught.value) and repr(corpus.captions[first].utterance_id) in str(caught.value)


def test_no_bit_changes_what_is_read(whole: PreparedCorpus, copy: Path) -> None:
    """Of the files that training reads, at places spread by chance over each."""
    expected = list(read_all(whole))
    chance = np.random.default_rng(3)
    for path in [copy / "captions.npy", copy / "captions.jsonl", *sorted((copy / "shards").iterdir())]:
        for place in [20, *chance.integers(0, path.stat().st_size, 12).tolist()]:
            flip(path, place)
            try:
                assert list(read_all(PreparedCorpus.open(copy))) == expected, f"{path}, byte {place}"
            except UserError as error:
                assert str(copy) in str(error) and "\n" not in str(error)
            flip(path, place)


@pytest.mark.parametrize("copied", [False, True])
def test_a_corpus_that_was_replaced_after_it_was_opened_is_not_read(
    whole: PreparedCorpus, copy: Path, copied: bool
) -> None:
    """Of the same captions with other sounds, whose places in the shards may be the same ones."""
    raw = moved(whole.folder.parent / "raw", copy.parent / "raw")
    corpus = PreparedCorpus.open(copy)
    corpus.frames(0)
    for number, caption in enumerate(tiny_corpus.read(raw).captions):
        tiny_corpus.speak(Path(caption.speech_path), 5, 5, seed=number)
    anew = tiny_corpus.prepare(raw, copy, num_shards=3, replace=True)
    reader = pickle.loads(pickle.dumps(corpus)) if copied else corpus
    with pytest.raises(UserError, match=r"of another corpus|of the corpus that was opened"):
        list(read_all(reader))
    assert len(list(read_all(anew))) == 17, "files that were open before are not taken for the new ones"


@pytest.mark.slow
def test_a_fault_in_a_loader_worker_is_told_in_one_line(copy: Path) -> None:
    corpus = PreparedCorpus.open(copy)
    shard_path(copy, 0).unlink()
    dataset = PairDataset(corpus, tiny_corpus.experiment())
    with pytest.raises(UserError, match="shard is missing") as caught:
        list(DataLoader(dataset, sampler=[(0, 0)], batch_size=None, num_workers=1))
    assert "\n" not in str(caught.value) and str(caught.value).startswith(str(shard_path(copy, 0)))


def test_images_or_frames_that_an_experiment_cannot_read_are_refused(whole: PreparedCorpus) -> None:
    folder, description = whole.folder, whole.description
    data = Data(short_side=32, crop_size=24)
    check_inputs(folder, description, data, Model())
    with pytest.raises(UserError, match=r"data\.short_side=32"):
        check_inputs(folder, description, Data(short_side=256), Model())
    check_inputs(folder, description.model_copy(update={"short_side": None}), Data(short_side=256), Model())
    narrow = description.model_copy(update={"features": {"kind": "mfcc", "coefficients": 39}})
    check_inputs(folder, narrow, data, Model(frame_features=39))
    with pytest.raises(UserError, match=r"39 coefficients.*set model\.frame_features=39") as caught:
        check_inputs(folder, narrow, data, Model())
    assert str(folder) in str(caught.value)


def test_a_pair_trained_on_one_kind_of_features_refuses_another(whole: PreparedCorpus) -> None:
    own = whole.description.features
    check_features(whole.folder, whole.description, dict(own))
    others = {"kind": "melspec", "coefficients": 40, "hop_length": 160, "source": "ResDAVEnet"}
    with pytest.raises(UserError, match=r"mfcc.*melspec.*source ResDAVEnet") as caught:
        check_features(whole.folder, whole.description, others)
    assert str(whole.folder) in str(caught.value) and "\n" not in str(caught.value)
    with pytest.raises(UserError, match=r"mfcc frames \(hop_length 200\).*mfcc frames \(hop_length 160\)"):
        check_features(whole.folder, whole.description, {**own, "hop_length": 160})
