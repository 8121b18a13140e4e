from pathlib import Path

import pytest
import stages
import torch

import sia
from sia.config import Stage
from sia.distributed import Ranks
from sia.inference.trained_pair import TrainedPair
from sia.run.folder import RunFolder
from sia.training.finish import finish_run

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def raw(corpus: Path) -> Path:
    """The recordings and images that the prepared corpus was made of."""
    return corpus.parent / "raw"


@pytest.fixture(scope="session")
def run(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A finished run, not to be changed; with two GRU layers, and with all the corpus's statistics in use."""
    settings = {"model.gru_layers": 2, "data.normalisation": "corpus", "data.standardise_frames": True}
    folder = tmp_path_factory.mktemp("runs") / "study"
    trained = stages.trained(folder, stages.experiment(corpus, Stage(epochs=2), **settings))
    finish_run(trained, Ranks())
    return trained


@pytest.fixture(scope="session")
def pair(run: RunFolder) -> TrainedPair:
    return sia.load(run.path, device="cpu")
