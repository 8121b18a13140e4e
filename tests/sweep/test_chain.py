"""The chain of one run's stages, trained in this process (`debug`): lineage, restarts, failures, deaths."""

import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from desk import assert_every_epoch_once, epoch_rows, experiment, test_rows, wait_until

from sia.atomic import read_json, write_json
from sia.cluster.launch import Launch
from sia.cluster.profile import Profile
from sia.data.staging import staged
from sia.errors import UsageError, UserError
from sia.run.folder import RunFolder, run_of
from sia.run.lock import HeartbeatLock
from sia.run.row_files import read_rows, write_rows
from sia.run.selection import selection_keys, selection_value
from sia.run.state import State, look
from sia.sweep import chain
from sia.sweep.chain import StageFailed, add_restart, follow_run, forget_failure

DEBUG = Launch("debug", Profile())


@pytest.fixture(autouse=True)
def signals():
    """A job takes over the signals of its process; here that is the tests' own."""
    taken = {number: signal.getsignal(number) for number in (signal.SIGUSR2, signal.SIGTERM)}
    yield
    for number, handler in taken.items():
        signal.signal(number, handler)


@pytest.fixture
def new_run(tmp_path, monkeypatch, corpus):
    monkeypatch.setenv("SIA_RUNS", str(tmp_path / "runs"))

    def create(**dotted) -> RunFolder:
        config = experiment(dotted.pop("folder", corpus), **dotted)
        run = run_of("chain", config)
        run.create(config)
        return run

    return create


def follow(run: RunFolder) -> list[dict]:
    heard: list[dict] = []
    forget_failure(run, before=time.time() + 1)
    follow_run(run, DEBUG, heard.append)
    return heard


@pytest.fixture(scope="module")
def kept(corpus, tmp_path_factory):
    """A finished run that kept every epoch; tests copy it."""
    config = experiment(corpus, **{"runtime.keep_every_epochs": 1})
    run = RunFolder(tmp_path_factory.mktemp("kept") / "chain" / config.run_name)
    run.create(config)
    taken = {number: signal.getsignal(number) for number in (signal.SIGUSR2, signal.SIGTERM)}
    follow(run)
    for number, handler in taken.items():
        signal.signal(number, handler)
    return run


@pytest.fixture
def finished(kept, tmp_path):
    shutil.copytree(kept.path, tmp_path / "chain" / kept.name)
    return RunFolder(tmp_path / "chain" / kept.name)


def test_a_run_goes_through_its_stages_to_its_test_row(new_run):
    run = new_run()
    heard = follow(run)
    assert look(run).state == State.FINISHED
    assert_every_epoch_once(run, 3)
    assert [(row["stage"], row["stage_epoch"]) for row in epoch_rows(run)] == [(1, 1), (1, 2), (2, 1)]
    assert len(test_rows(run)) == 1
    assert heard == [*epoch_rows(run), *test_rows(run)], "each row is heard once"
    assert not run.lock.exists()
    assert run.stage(1).best.exists() and run.stage(2).last.exists()
    before = {path: path.stat().st_mtime_ns for path in run.path.rglob("*")}
    assert len(follow(run)) == 4
    assert {path: path.stat().st_mtime_ns for path in run.path.rglob("*")} == before, "a finished run is left alone"


def test_each_stage_starts_from_the_best_of_the_one_before_and_the_best_of_all_is_tested(finished):
    first, second = (read_json(finished.stage(number).plan) for number in (1, 2))
    rows, told = epoch_rows(finished), read_json(finished.finished)
    assert (first["start_checkpoint"], first["start_epoch"], first["first_epoch"]) == (None, None, 0)
    assert second["start_checkpoint"] == "stages/1/checkpoints/best.pt"
    assert (second["start_epoch"], second["first_epoch"]) == (max(rows[:2], key=selection_value)["epoch"], 2)
    assert (first["start_lr"], second["start_lr"]) == (2e-3, 1e-3)
    assert rows[2]["train/learning_rate"] < 1e-3 < rows[0]["train/learning_rate"] < 2e-3
    best, (tested,) = max(rows, key=selection_value), test_rows(finished)
    assert (told["best_epoch"], told["best_stage"]) == (best["epoch"], best["stage"])
    assert math.isclose(told["best_value"], selection_value(best))
    assert (told["num_test_captions"], told["num_test_images"], told["world_size"]) == (16, 16, 1)
    assert tested["epoch"] == best["epoch"] and "speech_to_image/R_at_10" in told["test"]
    assert {f"test/{key}": value for key, value in told["test"].items()}.items() <= tested.items()


@pytest.mark.parametrize(
    ("wanted", "file", "epoch"),
    [("last", None, 3), ("epoch=1", None, 1), ("best", None, None)],
)
def test_a_restart_is_added_from_any_checkpoint_that_was_kept(finished, wanted, file, epoch):
    best = read_json(finished.finished)["best_epoch"]
    assert add_restart(finished, wanted, epochs=2, lr_scale=0.25) == 3
    plan = read_json(finished.stage(3).plan)
    assert (look(finished).state, look(finished).stage) == (State.WAITING, 3)
    assert plan["start_epoch"] == (epoch or best)
    assert (finished.path / plan["start_checkpoint"]).is_file()
    assert file is None or plan["start_checkpoint"] == file
    assert (plan["first_epoch"], plan["start_lr"]) == (3, 5e-4)
    follow(finished)
    assert look(finished).state == State.FINISHED
    assert_every_epoch_once(finished, 5)
    assert [row["stage"] for row in test_rows(finished)] == [2, 3]
    assert read_json(finished.finished)["best_epoch"] == max(epoch_rows(finished), key=selection_value)["epoch"]


def test_an_epoch_that_is_neither_best_nor_last_is_the_weights_that_were_kept_of_it(finished):
    rows = read_rows(finished.metrics)
    for row, value in zip(rows[:2], (0.1, 0.9), strict=True):
        row.update(dict.fromkeys(selection_keys("validation"), value))
    write_rows(finished.metrics, rows)
    add_restart(finished, "epoch=1", epochs=1, lr_scale=0.5)
    plan = read_json(finished.stage(3).plan)
    assert (plan["start_checkpoint"], plan["start_epoch"]) == ("stages/1/checkpoints/epoch-0001.pt", 1)
    follow(finished)
    assert_every_epoch_once(finished, 4)


@pytest.mark.parametrize(
    ("wanted", "epochs", "lr_scale", "error", "said"),
    [
        ("epoch=9", 1, 0.5, UserError, r"no checkpoint epoch=9; it kept .*best of stage 1"),
        ("newest", 1, 0.5, UsageError, "use best, last or epoch=N"),
        ("epoch=-1", 1, 0.5, UsageError, "use best, last or epoch=N"),
        ("best", 0, 0.5, UsageError, "epochs"),
        ("best", 1, 0.0, UsageError, "lr_scale"),
    ],
)
def test_a_restart_that_cannot_be_is_refused_and_nothing_changes(finished, wanted, epochs, lr_scale, error, said):
    before = sorted(finished.path.rglob("*"))
    with pytest.raises(error, match=said):
        add_restart(finished, wanted, epochs, lr_scale)
    assert sorted(finished.path.rglob("*")) == before
    assert look(finished).state == State.FINISHED


def test_a_run_that_is_not_at_its_end_takes_no_restart(new_run):
    with pytest.raises(UserError, match="it is new"):
        add_restart(new_run(), "best", 1, 0.5)


def test_a_rate_that_gives_nan_fails_with_the_setting_to_change(new_run):
    run = new_run(**{"optimizer.learning_rate": 1e30})
    with pytest.raises(StageFailed, match=r"lower optimizer\.learning_rate"):
        follow(run)
    told = read_json(run.stage(1).failed)
    assert "loss is" in told["error"] and "nan" in told["error"] and told["rank"] == 0
    assert look(run).state == State.FAILED and not run.lock.exists()
    assert epoch_rows(run) == []


def test_a_failed_stage_goes_on_when_its_cause_is_gone(new_run, corpus, tmp_path):
    place, away = tmp_path / "corpus", tmp_path / "away"
    shutil.copytree(corpus, place)
    run = new_run(folder=place)

    def take_the_corpus_away(row: dict) -> None:
        # Stage 1 is over when its rows are heard: the second stage cannot begin.
        if place.exists():
            place.rename(away)

    with pytest.raises(StageFailed, match="no prepared corpus there"):
        follow_run(run, DEBUG, take_the_corpus_away)
    assert (look(run).state, look(run).stage) == (State.FAILED, 2)
    assert "no prepared corpus there" in read_json(run.stage(2).failed)["error"]
    assert_every_epoch_once(run, 2)
    first = run.stage(1).last.stat().st_mtime_ns
    away.rename(place)
    follow(run)
    assert look(run).state == State.FINISHED
    assert_every_epoch_once(run, 3)
    assert run.stage(1).last.stat().st_mtime_ns == first, "stage 1 was not trained again"
    assert not run.stage(2).failed.exists()


@pytest.mark.parametrize(
    ("kind", "said"), [("mfcc", "begun on corpus"), ("melspec", r"it holds melspec frames.*trained on mfcc")]
)
def test_another_corpus_in_the_same_folder_is_refused(new_run, corpus, tmp_path, kind, said):
    place = tmp_path / "corpus"
    shutil.copytree(corpus, place)
    run = new_run(folder=place)
    chain.start_stage(run, 1, DEBUG)
    assert (look(run).state, look(run).stage) == (State.WAITING, 2)
    description = read_json(place / "corpus.json")
    features = {**description["features"], "kind": kind}
    write_json(place / "corpus.json", {**description, "features": features, "identity": "another"})
    with pytest.raises(StageFailed, match=said):
        follow(run)
    assert_every_epoch_once(run, 2)


def test_frames_of_another_width_are_refused_with_the_setting(new_run):
    with pytest.raises(StageFailed, match=r"set model\.frame_features=40"):
        follow(new_run(**{"model.frame_features": 39}))


def test_a_run_reads_the_copy_of_its_corpus_on_the_nodes_disk(new_run, corpus, tmp_path):
    """The shards themselves are gone when it trains: it cannot have read them."""
    place = tmp_path / "corpus"
    shutil.copytree(corpus, place)
    disk = tmp_path / "disk"
    staged(place, str(disk))
    shutil.rmtree(place / "shards")
    run = new_run(folder=place)
    follow_run(run, Launch("debug", Profile(stage_corpus_to=str(disk))), lambda row: None)
    assert look(run).state == State.FINISHED
    assert json.loads(run.corpus.read_text())["folder"] == str(place), "where it lies for everybody"


def test_a_job_that_finds_another_writer_leaves_quietly(new_run):
    run = new_run()
    chain.plan_stage(run, 1)
    with HeartbeatLock(run.lock, job_id="other", stage=1):
        chain.start_stage(run, 1, DEBUG)
        assert look(run).job_id == "other"
    assert epoch_rows(run) == [] and not run.stage(1).failed.exists()


CHILD = """
import sys
from pathlib import Path
from sia.cluster.profile import Profile
from sia.run.folder import RunFolder
from sia.sweep.chain import follow_run
from sia.cluster.launch import Launch
follow_run(RunFolder(Path(sys.argv[1])), Launch("debug", Profile()), lambda row: None)
"""


@pytest.mark.slow
def test_a_killed_job_is_lost_and_goes_on_from_its_last_epoch(new_run, monkeypatch):
    run = new_run(stages=[{"epochs": 400, "schedule": "calr"}])
    child = subprocess.Popen([sys.executable, "-c", CHILD, str(run.path)], stdout=subprocess.DEVNULL)
    wait_until(lambda: len(epoch_rows(run)) >= 2, 60, "two epochs")
    child.kill()
    child.wait()
    assert run.lock.exists() and not run.stage(1).done.exists(), "it was killed in mid-stage"
    assert look(run).state == State.LOST
    before = epoch_rows(run)
    killed_after = len(before)
    # The rest in few epochs: the plan, written once, is what the stage goes by.
    plan = read_json(run.stage(1).plan)
    plan["stage"]["epochs"] = killed_after + 2
    write_json(run.stage(1).plan, plan)
    monkeypatch.setattr(chain, "GRACE_SECONDS", 0.5)
    follow(run)
    assert look(run).state == State.FINISHED
    assert_every_epoch_once(run, killed_after + 2)
    assert epoch_rows(run)[:killed_after] == before, "no epoch was trained again"


@pytest.mark.slow
def test_a_job_told_to_end_saves_in_mid_epoch_and_goes_on(new_run, monkeypatch):
    import torch

    run = new_run(stages=[{"epochs": 400, "schedule": "calr"}], **{"runtime.num_workers": 1})
    chain.plan_stage(run, 1)
    code = CHILD.replace("follow_run(RunFolder", "from sia.sweep.chain import start_stage\nstart_stage(RunFolder")
    code = code.replace('Launch("debug", Profile()), lambda row: None', '1, Launch("debug", Profile())')
    child = subprocess.Popen([sys.executable, "-c", code, str(run.path)], stdout=subprocess.DEVNULL)
    wait_until(lambda: len(epoch_rows(run)) >= 2, 60, "two epochs")
    # As clusters do that signal every process of a job: the loader's worker too.
    workers = Path(f"/proc/{child.pid}/task/{child.pid}/children").read_text().split()
    assert workers
    for process in [*map(int, workers), child.pid]:
        os.kill(process, signal.SIGTERM)
    assert child.wait(60) == -signal.SIGINT, "debug ends as after a Ctrl-C"
    assert not run.stage(1).failed.exists()
    assert not run.lock.exists() and not run.stage(1).done.exists()
    before = epoch_rows(run)
    saved = torch.load(run.stage(1).partial, weights_only=True)
    assert saved["sampler"]["next_batch"] > 0, "it was saved in mid-epoch"
    assert saved["progress"]["loss_sum"] > 0
    plan = read_json(run.stage(1).plan)
    plan["stage"]["epochs"] = saved["progress"]["epochs_done"] + 1
    write_json(run.stage(1).plan, plan)
    monkeypatch.setattr(chain, "GRACE_SECONDS", 0.5)
    follow(run)
    assert_every_epoch_once(run, plan["stage"]["epochs"])
    assert epoch_rows(run)[:-1] == before, "no epoch was trained again"
    ended = torch.load(run.stage(1).last, weights_only=True)
    assert ended["progress"]["step"] == 12 * plan["stage"]["epochs"], "no step was taken twice"


def test_a_stage_that_is_lost_again_and_again_without_a_row_is_given_up(new_run, monkeypatch, tmp_path):
    """A cluster that takes every job and loses it: sbatch and srun that only pretend, squeue that knows nothing."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name, text in {
        "sbatch": "echo 'Submitted batch job 17'",
        "srun": "true",
        "squeue": "true",
        "sacct": "true",
    }.items():
        (folder / name).write_text(f"#!/bin/sh\necho {name} >> {tmp_path}/calls\n{text}\n")
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    monkeypatch.setattr(chain, "GRACE_SECONDS", 0.2)
    monkeypatch.setattr(chain, "POLL_SECONDS", 0.1)
    run = new_run()
    with pytest.raises(StageFailed, match="lost 4 times without progress"):
        follow_run(run, Launch("slurm", Profile()), lambda row: None)
    assert (tmp_path / "calls").read_text().split().count("sbatch") == 1 + 3
    assert look(run).state == State.FAILED


def test_a_cluster_that_takes_no_job_fails_the_stage_and_the_next_submit_tries_again(new_run, monkeypatch, tmp_path):
    run = new_run()
    monkeypatch.setenv("PATH", str(tmp_path))  # neither sbatch nor srun
    with pytest.raises(StageFailed, match="the slurm cluster did not take"):
        follow_run(run, Launch("slurm", Profile(partition="gpu", tasks_per_node=8)), lambda row: None)
    asked = read_json(run.launch)
    assert (asked["cluster"], asked["profile"]["partition"], asked["profile"]["tasks_per_node"]) == ("slurm", "gpu", 8)
    monkeypatch.undo()
    follow(run)
    assert look(run).state == State.FINISHED
