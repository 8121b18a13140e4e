"""One bit that flipped in a prepared corpus is found by whoever reads it, and so is a corpus that took its place."""

import pickle
import shutil
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np
import pytest
import tiny_corpus
from torch.utils.data import DataLoader

from sia.data.loader import SpeechDataset
from sia.data.prepared_corpus import PreparedCorpus, shard_path
from sia.errors import UserError


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> PreparedCorpus:
    """16 captions of 12 images in three shards."""
    root = tmp_path_factory.mktemp("whole")
    tiny_corpus.write_corpus(root / "raw", kinds=2)
    return tiny_corpus.prepare(root / "raw", root / "out", num_shards=3)


@pytest.fixture
def copy(whole: PreparedCorpus, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole.folder, tmp_path / "copy"))


def read_all(corpus: PreparedCorpus) -> Iterator[object]:
    """Every number and byte that training takes from a corpus."""
    yield {name: value for name, value in corpus.description.items() if name != "notes"}
    for index, caption in enumerate(corpus.captions):
        yield caption, corpus.frames(index).tobytes(), corpus.image(index)


def flip(path: Path, place: int) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


def bytes_of(folder: Path, shard: int, dataset: str) -> int:
    """Where a dataset's values begin in the shard's file."""
    with h5py.File(shard_path(folder, shard)) as file:
        return int(file[dataset].id.get_offset())


@pytest.mark.parametrize("what", ["frames", "image"])
def test_a_bit_in_frames_or_in_an_image_names_shard_caption_and_cure(
    whole: PreparedCorpus, copy: Path, what: str
) -> None:
    flip(shard_path(copy, 0), bytes_of(copy, 0, {"frames": "frames", "image": "image_bytes"}[what]) + 40)
    corpus = PreparedCorpus.open(copy)
    first = next(index for index, caption in enumerate(corpus.captions) if (caption.shard, caption.row) == (0, 0))
    with pytest.raises(UserError, match=r"--verify.*delete") as caught:
        getattr(corpus, {"frames": "frames", "image": "image"}[what])(first)
    assert str(shard_path(copy, 0)) in str(caught.value) and repr(whole.captions[first].utterance_id) in str(
        caught.value
    )


@pytest.mark.parametrize("dataset", ["frame_offsets", "frame_crcs", "image_offsets", "captions", "digests"])
def test_a_bit_in_what_a_shard_tells_of_its_rows_is_found_when_it_is_opened(copy: Path, dataset: str) -> None:
    flip(shard_path(copy, 0), bytes_of(copy, 0, dataset) + 2)
    with pytest.raises(UserError, match="checksum") as caught:
        list(read_all(PreparedCorpus.open(copy)))
    assert str(shard_path(copy, 0)) in str(caught.value)


@pytest.mark.parametrize(("name", "place"), [("captions.npy", 20), ("captions.npy", -9), ("captions.jsonl", 30)])
def test_a_bit_in_captions_is_found(copy: Path, name: str, place: int) -> None:
    flip(copy / name, place)
    with pytest.raises(UserError, match=name):
        list(read_all(PreparedCorpus.open(copy)))


def test_no_bit_changes_what_is_read(whole: PreparedCorpus, copy: Path) -> None:
    """Of the files that training reads, at places spread by chance over each."""
    expected = list(read_all(whole))
    chance = np.random.default_rng(3)
    for path in [copy / "captions.npy", copy / "captions.jsonl", *sorted((copy / "shards").iterdir())]:
        for place in chance.integers(0, path.stat().st_size, 12).tolist():
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
    raw = Path(shutil.copytree(whole.folder.parent / "raw", copy.parent / "raw"))
    corpus = PreparedCorpus.open(copy)
    corpus.frames(0)
    renamed = [tiny_corpus.caption(raw, c.utterance_id, c.image_id, c.split) for c in tiny_corpus.read(raw).captions]
    tiny_corpus.describe(raw, renamed)
    for number, caption in enumerate(renamed):
        tiny_corpus.speak(Path(caption.speech_path), 5, 5, seed=number)
    tiny_corpus.prepare(raw, copy, num_shards=3, replace=True)
    reader = pickle.loads(pickle.dumps(corpus)) if copied else corpus
    with pytest.raises(UserError, match=r"of another corpus|of the corpus that was opened"):
        list(read_all(reader))


def test_a_fault_in_a_loader_worker_is_told_in_one_line(copy: Path) -> None:
    corpus = PreparedCorpus.open(copy)
    shard_path(copy, 0).unlink()
    dataset = SpeechDataset(corpus, range(len(corpus.captions)), standardise=False)
    with pytest.raises(UserError, match="shard is missing") as caught:
        list(DataLoader(dataset, batch_size=None, num_workers=1))
    assert "\n" not in str(caught.value) and str(caught.value).startswith(str(shard_path(copy, 0)))
