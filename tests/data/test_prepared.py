import itertools
import json
import pickle
import shutil
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import tiny_corpus

from sia.config import Data, Model
from sia.data.caption_index import INDEX, PlacedCaption, PlacedCaptions, write_placed
from sia.data.prepared_corpus import (
    PreparedCorpus,
    check_features,
    check_frame_features,
    check_short_side,
    read_description,
    shard_path,
)
from sia.errors import UserError


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> PreparedCorpus:
    """16 captions of 12 images."""
    root = tmp_path_factory.mktemp("prepared")
    tiny_corpus.write_corpus(root / "raw", kinds=2)
    return tiny_corpus.prepare(root / "raw", root / "out", num_shards=3)


def copy_of(prepared: PreparedCorpus, folder: Path) -> Path:
    return Path(shutil.copytree(prepared.folder, folder / "copy"))


def refused(folder: Path) -> str:
    with pytest.raises(UserError) as caught:
        PreparedCorpus.open(folder)
    assert str(folder) in str(caught.value) and "jobs/prepare.py" in str(caught.value)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_splits_partition_the_captions(prepared: PreparedCorpus) -> None:
    splits = {name: prepared.split(name) for name in ("train", "validation", "test")}
    assert {name: len(indices) for name, indices in splits.items()} == {"train": 8, "validation": 4, "test": 4}
    assert sorted(itertools.chain(*splits.values())) == list(range(16))
    assert all(prepared.captions[index].split == name for name, indices in splits.items() for index in indices)


def test_a_split_that_is_not_there(prepared: PreparedCorpus) -> None:
    with pytest.raises(UserError, match=r"split 'dev'.*train, validation, test"):
        prepared.split("dev")


def test_captions_of_an_image_share_its_bytes(prepared: PreparedCorpus) -> None:
    by_image: dict[str, list[int]] = {}
    for index in prepared.split("train"):
        by_image.setdefault(prepared.captions[index].image_id, []).append(index)
    assert {len(indices) for indices in by_image.values()} == {2}
    contents = [{prepared.image(index) for index in indices} for indices in by_image.values()]
    assert all(len(content) == 1 for content in contents) and len(set.union(*contents)) == 4


def test_frames_are_as_many_as_recorded(prepared: PreparedCorpus) -> None:
    for index, caption in enumerate(prepared.captions):
        assert prepared.frames(index).shape == (caption.num_frames, 40)


def test_a_copy_for_a_worker_opens_its_shards_itself(prepared: PreparedCorpus) -> None:
    prepared.frames(0)
    copy = pickle.loads(pickle.dumps(prepared))
    assert not copy._readers and prepared._readers
    assert np.array_equal(copy.frames(0), prepared.frames(0))


def test_captions_are_those_of_captions_jsonl(prepared: PreparedCorpus) -> None:
    """The index beside a naive reading of every line."""
    rows = [json.loads(line) for line in (prepared.folder / "captions.jsonl").read_text().splitlines()]
    assert [asdict(caption) for caption in prepared.captions] == rows and len(prepared.captions) == 16
    assert prepared.captions[-1] == prepared.captions[15]
    assert prepared.captions[3:9:2] == [prepared.captions[index] for index in (3, 5, 7)]
    assert prepared.captions[np.int64(4)].utterance_id == rows[4]["utterance_id"]
    for outside in (16, -17):
        with pytest.raises(IndexError):
            prepared.captions[outside]
    for name in ("shard", "row", "image_row", "num_frames"):
        assert prepared.captions.column(name).tolist() == [row[name] for row in rows]
    numbers = dict(zip((row["image_id"] for row in rows), prepared.captions.column("image").tolist(), strict=True))
    assert sorted(numbers.values()) == list(range(12))


def test_names_in_any_script(tmp_path: Path) -> None:
    caption = PlacedCaption("ütter\u2028ance", "бильд", "test", 0, 0, 0, 6, text='zwei\nZeilen "日本"')
    checksum = write_placed(tmp_path, [caption, caption])
    assert list(PlacedCaptions(tmp_path, checksum)) == [caption, caption]


def test_a_copy_for_a_worker_is_small(prepared: PreparedCorpus) -> None:
    prepared.split("train")
    assert list(prepared.captions)
    assert len(pickle.dumps(prepared)) < 6000
    assert list(pickle.loads(pickle.dumps(prepared)).captions) == list(prepared.captions)


@pytest.mark.parametrize("damage", ["missing", "other layout", "another corpus's"])
def test_an_index_that_does_not_fit_is_refused(prepared: PreparedCorpus, tmp_path: Path, damage: str) -> None:
    folder = copy_of(prepared, tmp_path)
    if damage == "missing":
        (folder / "captions.npy").unlink()
    elif damage == "other layout":
        np.save(folder / "captions.npy", np.zeros(16, INDEX.descr[:3]))
    else:
        with open(folder / "captions.jsonl", "a") as lines:
            lines.write("{}\n")
    assert "captions.npy" in refused(folder)


def test_image_pools(prepared: PreparedCorpus) -> None:
    train = prepared.split("train")
    pool = prepared.image_pool(train)
    assert [prepared.captions[index].image_id for index in pool] == list(
        dict.fromkeys(prepared.captions[index].image_id for index in train)
    )


def test_a_moved_folder_is_the_same_corpus(prepared: PreparedCorpus, tmp_path: Path) -> None:
    moved = PreparedCorpus.open(copy_of(prepared, tmp_path))
    assert moved.identity == prepared.identity
    assert np.array_equal(moved.frames(5), prepared.frames(5)) and moved.image(5) == prepared.image(5)


def test_no_corpus_there(tmp_path: Path) -> None:
    assert "no prepared corpus" in refused(tmp_path)
    assert "no prepared corpus" in refused(tmp_path / "nowhere")


def test_a_preparation_that_was_not_finished(prepared: PreparedCorpus, tmp_path: Path) -> None:
    folder = copy_of(prepared, tmp_path)
    (folder / "corpus.json").unlink()
    assert "not finished" in refused(folder)


def test_a_shard_that_is_missing_is_named_when_it_is_read(prepared: PreparedCorpus, tmp_path: Path) -> None:
    folder = copy_of(prepared, tmp_path)
    shard_path(folder, prepared.captions[0].shard).unlink()
    with pytest.raises(UserError, match=str(shard_path(folder, prepared.captions[0].shard))):
        PreparedCorpus.open(folder).frames(0)


def test_the_description_counts(prepared: PreparedCorpus) -> None:
    described = json.loads((prepared.folder / "corpus.json").read_text())
    frames = sum(len(prepared.frames(index)) for index in range(16))
    assert (described["num_images"], described["num_frames"], described["dropped"]) == (12, frames, {})
    assert described["hours"] == pytest.approx(frames * 0.0125 / 3600)


def test_another_short_side_than_the_experiments(prepared: PreparedCorpus) -> None:
    folder, description = prepared.folder, prepared.description
    check_short_side(folder, description, Data(short_side=32, crop_size=24))
    with pytest.raises(UserError, match=r"data\.short_side=32"):
        check_short_side(folder, description, Data(short_side=256))
    check_short_side(folder, {**description, "short_side": None}, Data(short_side=256))


def test_a_pair_trained_on_one_kind_of_features_refuses_another(prepared: PreparedCorpus) -> None:
    folder, own = prepared.folder, prepared.description["features"]
    check_features(folder, prepared.description, read_description(folder)["features"])
    others = {"kind": "melspec", "coefficients": 40, "hop_length": 160, "source": "ResDAVEnet"}
    with pytest.raises(UserError) as caught:
        check_features(folder, prepared.description, others)
    said = str(caught.value)
    assert str(folder) in said and "\n" not in said
    assert said.index("mfcc") < said.index("melspec") and "source ResDAVEnet" in said
    with pytest.raises(UserError, match=r"mfcc frames \(hop_length 200\).*mfcc frames \(hop_length 160\)"):
        check_features(folder, prepared.description, {**own, "hop_length": 160})


def test_frames_of_another_width_than_the_model_reads(prepared: PreparedCorpus) -> None:
    check_frame_features(prepared.folder, prepared.description, Model())
    narrow = {**prepared.description, "features": {"kind": "mfcc", "coefficients": 39}}
    check_frame_features(prepared.folder, narrow, Model(frame_features=39))
    with pytest.raises(UserError, match=r"39 coefficients.*set model\.frame_features=39") as caught:
        check_frame_features(prepared.folder, narrow, Model())
    assert str(prepared.folder) in str(caught.value)
