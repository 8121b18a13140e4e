from pathlib import Path

import pytest
import tiny_corpus
import torch

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def large_corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a prepared corpus with enough images to tell recall from chance: 64 a split."""
    root = tmp_path_factory.mktemp("large_corpus")
    tiny_corpus.write_corpus(root / "raw")
    return tiny_corpus.prepare(root / "raw", root / "prepared").folder
