"""Two nodes: one has the corpus on its disk, the other copies it for longer than ranks wait for each other."""

import multiprocessing
import time
from datetime import timedelta
from pathlib import Path

import pytest
from desk import epoch_rows, experiment
from torch.distributed import HashStore

from sia import distributed
from sia.cluster import stage_job as job
from sia.cluster.stage_job import Place, TrainStage
from sia.data.staging import staged
from sia.distributed import Ranks
from sia.run.folder import RunFolder, run_of
from sia.sweep.chain import plan_stage

WAIT_SECONDS = 6
RANKS = 2


def train(rank: int, slow: int, path: str, disk: str, seconds: float) -> None:
    """A rank, on a node whose copy takes long where it is the slow one."""
    distributed.TIMEOUT, distributed.SIGN_OF_LIFE_SECONDS = timedelta(seconds=WAIT_SECONDS), 0.5

    def slowly(folder: Path, to: str, again: str) -> Path:
        time.sleep(seconds if rank == slow else 0)
        return staged(folder, to, again)

    job.staged = slowly  # type: ignore[assignment]
    TrainStage(path, 1, 1, f"{disk}/{rank}").train(Place(rank, 0, RANKS, job_id="7"))


@pytest.fixture
def run(tmp_path: Path, corpus: Path, monkeypatch: pytest.MonkeyPatch) -> RunFolder:
    monkeypatch.setenv("SIA_RUNS", str(tmp_path / "runs"))
    config = experiment(corpus, stages=[{"epochs": 1, "schedule": "calr"}])
    run = run_of("slow", config)
    run.create(config)
    plan_stage(run, 1)
    return run


@pytest.mark.slow
@pytest.mark.parametrize("slow", range(RANKS))
def test_a_copy_is_waited_for_for_as_long_as_it_takes(run: RunFolder, tmp_path: Path, slow: int) -> None:
    context = multiprocessing.get_context("spawn")
    arguments = (slow, str(run.path), str(tmp_path / "disk"), 2.0 * WAIT_SECONDS)
    ranks = [context.Process(target=train, args=(rank, *arguments)) for rank in range(RANKS)]
    for rank in ranks:
        rank.start()
    for rank in ranks:
        rank.join(90)
    assert [rank.exitcode for rank in ranks] == [0, 0]
    assert run.finished.exists() and len(epoch_rows(run)) == 1


def test_a_rank_that_is_gone_is_not_waited_for_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distributed, "TIMEOUT", timedelta(seconds=0.6))
    with pytest.raises(RuntimeError, match="rank 1 gave no sign of life") as caught:
        Ranks(0, RANKS, store=HashStore()).each_in_its_time(lambda: None)
    assert job.is_lost_connection(caught.value), "the stage is submitted again"
