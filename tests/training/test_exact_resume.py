"""A run that is interrupted anywhere ends with the very bits of one that is not, on one rank and on several.

On the CPU, with one thread a rank. A signal saves and ends at a step's end; a death saves nothing, and the next job
goes on from the last checkpoint, wherever that is.
"""

import os
import shutil
import time
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import stages
import torch
from stages import STEPS

from sia.config import Experiment, Stage
from sia.distributed import Ranks, joined_ranks
from sia.run.folder import RunFolder
from sia.schedules import Calr
from sia.sweep.chain import plan_stage
from sia.training.fit import train_stage
from sia.training.preemption import PreemptionFlag

EPOCHS = 3  # of the first stage; the warm restart has 2
CHAIN = [Stage(epochs=EPOCHS), Stage(epochs=2, lr_scale=0.5, schedule=Calr(), keep_moments=True)]
CASES: dict[str, dict[str, Any]] = {
    "float32": {},
    "bf16": {"training.precision": "bf16"},
    "a learnt temperature": {"loss.name": "info_nce"},
    "drawn negatives": {"loss.name": "hinge_sampled"},
    "chunks": {"training.chunk_size": 6},
    "all of it": {"loss.name": "info_nce", "training.precision": "bf16", "training.chunk_size": 6},
}


class Death(Exception):
    """The job is gone, without a word."""


class DiesAfter(stages.RaisedAfter):
    """A job that dies in the given step, before it could save."""

    def __bool__(self) -> bool:
        if super().__bool__():
            raise Death
        return False


class Life(NamedTuple):
    """A job that ends before the stage does, at the end of the given step, counted in this job."""

    steps: int
    dies: bool = False

    def flag(self) -> PreemptionFlag:
        return DiesAfter(self.steps) if self.dies else stages.RaisedAfter(self.steps)


Lives = dict[int, list[Life]]  # the jobs of a stage before the one that ends it
CUTS: dict[str, Lives] = {
    "after the first step": {1: [Life(1)]},
    "in mid-epoch": {1: [Life(STEPS + 2)]},
    "at an epoch's last step": {1: [Life(2 * STEPS)]},
    "at the stage's last step": {1: [Life(EPOCHS * STEPS)]},
    "between epochs": {1: [Life(STEPS + 1, dies=True)]},
    "before anything was saved": {1: [Life(1, dies=True)]},
    "in the warm restart": {2: [Life(1), Life(STEPS)]},
    "before the warm restart saved": {2: [Life(2, dies=True)]},
}
MANY_CUTS: Lives = {
    1: [Life(1), Life(1, dies=True), Life(1), Life(STEPS), Life(STEPS + 1, dies=True), Life(2)],
    2: [Life(2), Life(2, dies=True), Life(2), Life(1)],
}


def experiment(corpus: Path, case: str) -> Experiment:
    settings = {"training.train_recall_sample": 8, "runtime.keep_every_epochs": 1, **CASES[case]}
    return stages.experiment(corpus, *CHAIN, **settings)


def train(run: RunFolder, ranks: Ranks, lives: Lives) -> None:
    """All stages of the run, each through its lives."""
    for number in range(1, len(CHAIN) + 1):
        if ranks.is_first:
            plan_stage(run, number)
        ranks.barrier()
        for life in lives.get(number, []):
            assert not _one_job(run, number, ranks, life.flag())
        assert _one_job(run, number, ranks, PreemptionFlag())


def _one_job(run: RunFolder, number: int, ranks: Ranks, flag: PreemptionFlag) -> bool:
    torch.manual_seed(torch.seed())  # a new process's generator holds something else
    try:
        return train_stage(run, number, ranks, flag)
    except Death:
        return False


def begun(folder: Path, settings: Experiment) -> RunFolder:
    run = RunFolder(folder / settings.run_name)
    run.create(settings)
    return run


def assert_same_bits(run: RunFolder, whole: RunFolder) -> None:
    assert stages.rows(run) == stages.rows(whole) and len(stages.rows(run)) == EPOCHS + 2
    files = sorted(path.relative_to(whole.path) for path in whole.path.rglob("*.pt"))
    assert files == sorted(path.relative_to(run.path) for path in run.path.rglob("*.pt")) and len(files) == 4 + 5
    assert not list(run.path.rglob(".*"))
    for name in files:
        here, there = (_without_times(stages.saved(one.path / name)) for one in (run, whole))
        assert here.keys() == there.keys()
        assert [part for part in there if not stages.same(here[part], there[part])] == [], name


def _without_times(content: dict[str, Any]) -> dict[str, Any]:
    progress = content.get("progress", {})
    for holder in (progress, *progress.get("rows", [])):
        for name in ("seconds", *stages.TIMES):
            holder.pop(name, None)
    return content


@pytest.fixture(scope="module")
def wholes(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, RunFolder]:
    """A run of each case that was never interrupted, on one rank."""
    folder = tmp_path_factory.mktemp("wholes")
    runs = {case: begun(folder / case.replace(" ", "-"), experiment(corpus, case)) for case in CASES}
    for run in runs.values():
        train(run, Ranks(), {})
    return runs


@pytest.mark.parametrize("cut", CUTS)
def test_cut_anywhere_it_ends_with_the_same_bits(
    wholes: dict[str, RunFolder], corpus: Path, tmp_path: Path, cut: str
) -> None:
    run = begun(tmp_path, experiment(corpus, "float32"))
    train(run, Ranks(), CUTS[cut])
    assert_same_bits(run, wholes["float32"])


@pytest.mark.parametrize("case", CASES)
def test_cut_again_and_again_it_ends_with_the_same_bits(
    wholes: dict[str, RunFolder], corpus: Path, tmp_path: Path, case: str
) -> None:
    run = begun(tmp_path, experiment(corpus, case))
    train(run, Ranks(), MANY_CUTS)
    assert_same_bits(run, wholes[case])


def work(rank: int, folder: str, ranks_in_all: int, whole: list[str], cut: list[str]) -> None:
    """All that a rank does: each case without interruption, then interrupted."""
    torch.set_num_threads(1)
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    with joined_ranks(rank, ranks_in_all, rank, Path(folder) / "meeting") as ranks:
        for one, other in zip(whole, cut, strict=True):
            train(RunFolder(Path(one)), ranks, {})
            train(RunFolder(Path(other)), ranks, MANY_CUTS)


@pytest.mark.slow
@pytest.mark.parametrize(("ranks", "cases"), [(2, ["float32", "drawn negatives", "all of it"]), (4, ["float32"])])
def test_several_ranks_end_with_the_same_bits(corpus: Path, tmp_path: Path, ranks: int, cases: list[str]) -> None:
    """With more than two, the sums of gradients are rounded in an order, which must be the same in every job."""
    settings = [experiment(corpus, case) for case in cases]
    whole, cut = ([begun(tmp_path / name, one) for one in settings] for name in ("whole", "cut"))
    paths = [[str(run.path) for run in runs] for runs in (whole, cut)]
    torch.multiprocessing.spawn(work, (str(tmp_path), ranks, *paths), nprocs=ranks)
    for one, other in zip(whole, cut, strict=True):
        assert_same_bits(other, one)


def test_the_cases_differ(wholes: dict[str, RunFolder]) -> None:
    """Else the tests above would prove less than they say."""
    losses = {str([row["train/loss"] for row in stages.rows(run)]) for run in wholes.values()}
    assert len(losses) == len(CASES)


class Slow(stages.RaisedAfter):
    """Each step of the job takes a while longer."""

    def __bool__(self) -> bool:
        time.sleep(0.2)
        return super().__bool__()


def test_an_epochs_seconds_are_those_of_all_its_jobs(corpus: Path, tmp_path: Path) -> None:
    run = stages.begin(tmp_path, stages.experiment(corpus, Stage(epochs=2)))
    assert not stages.train(run, flag=Slow(2))
    of_first_job = stages.saved(run.stage(1).partial)["progress"]["epoch_seconds"]
    assert of_first_job >= 0.4
    assert stages.train(run)
    progress = stages.saved(run.stage(1).last)["progress"]
    first, second = (row["train/seconds"] for row in progress["rows"])
    assert first > of_first_job
    assert (first + second, 0.0) == (pytest.approx(progress["seconds"]), progress["epoch_seconds"])


def test_a_job_that_died_before_it_kept_an_epochs_weights_is_mended(
    wholes: dict[str, RunFolder], tmp_path: Path
) -> None:
    """The last of an epoch's writes but one; a part of another file is cleared away."""
    whole = wholes["float32"]
    run = RunFolder(tmp_path / whole.name)
    shutil.copytree(whole.path, run.path)
    run.stage(2).done.unlink()
    run.stage(2).weights_of_epoch(EPOCHS + 2).unlink()
    (run.stage(2).last.parent / ".last.pt.0123abcd.tmp").write_bytes(b"PK")
    assert stages.train(run, 2)
    assert_same_bits(run, whole)
