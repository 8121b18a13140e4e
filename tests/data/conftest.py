"""A corpus of 16 captions of 12 images: its files, and prepared in three shards."""

import shutil
from pathlib import Path

import pytest
import tiny_corpus

from sia.data.prepared_corpus import PreparedCorpus


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """Files to be changed before they are prepared."""
    tiny_corpus.write_corpus(tmp_path / "raw", kinds=2)
    return tmp_path / "raw"


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory) -> PreparedCorpus:
    """Not to be changed; its files lie beside it, in `raw`."""
    root = tmp_path_factory.mktemp("whole")
    tiny_corpus.write_corpus(root / "raw", kinds=2)
    return tiny_corpus.prepare(root / "raw", root / "out", num_shards=3)


@pytest.fixture
def copy(whole: PreparedCorpus, tmp_path: Path) -> Path:
    """The folder of a copy, to be damaged."""
    return Path(shutil.copytree(whole.folder, tmp_path / "copy"))
