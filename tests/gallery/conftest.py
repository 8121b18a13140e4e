"""A finished run on a corpus whose names and sentences would be markup if they were not escaped."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from threading import Thread

import pytest
import stages
import tiny_corpus
import torch
import uvicorn

import sia
from sia.config import Stage
from sia.data.words import WORDS, Word, lines_of
from sia.distributed import Ranks
from sia.gallery import serve
from sia.inference.search import collections_of
from sia.inference.trained_pair import TrainedPair
from sia.run.folder import RunFolder
from sia.training.finish import finish_run

torch.set_num_threads(1)
MARKUP = "<script>alert(1)</script>"
SECRET = "secret"


@pytest.fixture(scope="session")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Recordings and images, and the times of two words of each recording of test."""
    root = tmp_path_factory.mktemp("gallery") / "raw"
    captions = tiny_corpus.write_corpus(root, kinds=4, captions={"train": 1, "validation": 1, "test": 2})
    tiny_corpus.describe(root, [replace(one, text=f"{MARKUP} & {one.utterance_id}") for one in captions])
    words = [Word("<i>low", 0.0, 0.06), Word("high", 0.06, 0.12)]
    spoken = (one.utterance_id for one in captions if one.split == "test")
    (root / WORDS).write_text("".join(lines_of(name, words) for name in spoken))
    return root


@pytest.fixture(scope="session")
def corpus(raw: Path) -> Path:
    return tiny_corpus.prepare(raw, raw.parent / "prepared").folder


@pytest.fixture(scope="session")
def run(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    folder = tmp_path_factory.mktemp("runs") / "study"
    trained = stages.trained(folder, stages.experiment(corpus, Stage(epochs=2)))
    finish_run(trained, Ranks())
    return trained


@pytest.fixture(scope="session")
def pair(run: RunFolder) -> TrainedPair:
    return sia.load(run.path, device="cpu")


@pytest.fixture(scope="session")
def port(pair: TrainedPair, corpus: Path) -> Iterator[int]:
    """That of a page over the corpus's test images, and over its test recordings."""
    app = serve.app_of(pair, collections_of(pair, corpus, corpus, "test", served=True), 3, "<b>pair", SECRET)
    server = uvicorn.Server(uvicorn.Config(app, log_level="error"))
    bound = serve.listening(0)
    thread = Thread(target=server.run, args=([bound],))
    thread.start()
    yield bound.getsockname()[1]
    server.should_exit = True
    thread.join()
