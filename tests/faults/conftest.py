"""The corpus of the fault tests, and a run on it that nothing disturbed."""

from pathlib import Path

import pytest
import tiny_corpus
from desk import Desk, values
from slurm_box import CHAIN

from sia.run.folder import RunFolder


@pytest.fixture(scope="session")
def long_corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Epochs of 60 steps, in which a fault finds something to interrupt: 240 training captions of 16 images."""
    root = tmp_path_factory.mktemp("long_corpus")
    tiny_corpus.write_corpus(root / "raw", kinds=4, captions={"train": 15, "validation": 1, "test": 1})
    return tiny_corpus.prepare(root / "raw", root / "prepared").folder


@pytest.fixture(scope="session")
def undisturbed(long_corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """The run of one rank, trained in one process without any cluster."""
    desk = Desk(tmp_path_factory.mktemp("undisturbed"))
    desk.write("tiny.yaml", {"experiment": values(long_corpus, stages=CHAIN)})
    done = desk.run("submit.py", "--grid", "tiny.yaml", "--cluster", "debug", timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    (run,) = desk.runs("tiny")
    return run
