"""The corpus of the fault tests."""

from pathlib import Path

import pytest
import tiny_corpus


@pytest.fixture(scope="session")
def long_corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Epochs of 60 steps, in which a fault finds something to interrupt: 240 training captions of 16 images."""
    root = tmp_path_factory.mktemp("long_corpus")
    tiny_corpus.write_corpus(root / "raw", kinds=4, captions={"train": 15, "validation": 1, "test": 1})
    return tiny_corpus.prepare(root / "raw", root / "prepared").folder
