"""A corpus on a node's own disk."""

import multiprocessing
import os
import shutil
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest
import tiny_corpus

from sia.data import staging
from sia.data.prepared_corpus import PreparedCorpus
from sia.data.staging import staged
from sia.errors import UserError


def test_the_copy_is_the_corpus(corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NODE_DISK", str(tmp_path))
    copy, here = PreparedCorpus.open(staged(corpus, "$NODE_DISK/scratch")), PreparedCorpus.open(corpus)
    assert copy.folder.is_relative_to(tmp_path / "scratch") and copy.identity == here.identity
    for index in (0, len(here.captions) - 1):
        np.testing.assert_array_equal(copy.frames(index), here.frames(index))
        assert copy.image(index) == here.image(index)


def test_it_is_copied_once_and_again_where_it_was_cut_short(corpus: Path, tmp_path: Path) -> None:
    """A shard that was deleted, as the fault of a damaged one advises, is another such case."""
    copy = staged(corpus, str(tmp_path))
    shard = next((copy / "shards").glob("*.h5"))
    os.utime(shard, (1, 1))
    assert staged(corpus, str(tmp_path)) == copy and shard.stat().st_mtime == 1
    for damage in (lambda: os.truncate(shard, 100), shard.unlink, (copy / "corpus.json").unlink):
        damage()
        opened = PreparedCorpus.open(staged(corpus, str(tmp_path)))
        assert [opened.image(index) for index in range(len(opened.captions))]


def test_processes_of_one_node_share_one_copy(corpus: Path, tmp_path: Path) -> None:
    with multiprocessing.get_context("spawn").Pool(3) as pool:
        assert len(set(pool.starmap(staged, [(corpus, str(tmp_path))] * 3))) == 1


def test_a_full_disk_is_no_reason_to_stop(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10, 9, staging.SPARE_BYTES + 1))
    assert staged(corpus, str(tmp_path)) == corpus
    assert "do not fit" in capsys.readouterr().err


@pytest.mark.parametrize("to", ["scratch/here", "$NO_SUCH_VARIABLE/x"])
def test_a_place_that_is_none_is_refused(corpus: Path, to: str) -> None:
    with pytest.raises(UserError, match="give an absolute path"):
        staged(corpus, to)


def test_a_corpus_that_is_replaced_while_it_is_copied_is_not_a_copy(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = shutil.copytree(corpus, tmp_path / "own")
    tiny_corpus.write_corpus(tmp_path / "raw", kinds=2)
    copyfile = shutil.copyfile

    def replaced(source: Path, target: Path) -> None:
        if source.name == "corpus.json":
            tiny_corpus.prepare(tmp_path / "raw", own, replace=True)
        copyfile(source, target)

    monkeypatch.setattr(shutil, "copyfile", replaced)
    with pytest.raises(UserError, match="prepared anew while it was copied"):
        staged(own, str(tmp_path / "node"))
    monkeypatch.undo()
    assert list(PreparedCorpus.open(staged(own, str(tmp_path / "node"))).captions)
