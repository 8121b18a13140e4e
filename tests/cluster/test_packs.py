"""Several runs in one allocation: each is its own, and learns what it learns alone."""

import os
import signal
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from desk import Desk, experiment, values, wait_until
from stages import rows, same, saved

from sia.cluster.pack_job import Pack, ask_for_place
from sia.cluster.pack_step import GPUS
from sia.cluster.packs import PackFolder, Packs, Ticket
from sia.cluster.profile import Profile, load_profile
from sia.cluster.stage_job import Place, TrainStage
from sia.errors import UsageError, UserError
from sia.run.folder import RunFolder
from sia.run.lock import Holder, living_holder
from sia.run.records import Job
from sia.run.row_files import read_rows
from sia.run.state import State, look
from sia.training.preemption import PreemptionFlag

STAGES = [{"epochs": 30, "schedule": "calr"}, {"epochs": 1, "schedule": "calr", "lr_scale": 0.5}]
SUBMIT = ("submit.py", "--grid", "tiny.yaml", "--scheduler", "none")


def desk_with(folder: Path, corpus: Path, profile: dict, layers: list[int], sizes: list[int]) -> Desk:
    desk = Desk(folder)
    desk.write("pack.yaml", profile)
    grid = {"model.gru_layers": layers, "model.latent_size": sizes}
    desk.write("tiny.yaml", {"experiment": values(corpus, stages=STAGES), "grid": grid})
    return desk


def packs_of(desk: Desk) -> Packs:
    return Packs.of_study(desk.runs("tiny")[0].path.parent)


def assert_all_ended_as(packed: list[RunFolder], alone: list[RunFolder]) -> None:
    assert [run.name for run in packed] == [run.name for run in alone]
    for one, other in zip(packed, alone, strict=True):
        assert look(one).state == State.FINISHED
        assert rows(one) == rows(other)
        assert same(*(saved(run.stage(2).last)["model"] for run in (one, other)))


@pytest.mark.slow
def test_a_machine_trains_two_runs_side_by_side(corpus, tmp_path):
    alone = desk_with(tmp_path / "alone", corpus, {}, [1, 2], [8])
    assert alone.run(*SUBMIT, "--cluster", "local", "--profile", "pack.yaml", timeout=240).returncode == 0
    packed = desk_with(tmp_path / "packed", corpus, {"tasks_per_node": 2, "runs_per_node": 2}, [1, 2], [8, 12])
    driver = packed.start(*SUBMIT, "--cluster", "local", "--profile", "pack.yaml")
    wait_until(lambda: len(packed.runs("tiny")) == 4, 60, "the runs")
    whole = [run for run in packed.runs("tiny") if "A8-" in run.name]
    unwanted = [run for run in packed.runs("tiny") if run not in whole]
    with ThreadPoolExecutor() as threads:
        cancelled = [threads.submit(cancel_in_mid_training, packed, run) for run in unwanted]
        holders = wait_until(lambda: training(packed.runs("tiny"), 2), 200, f"two runs at once\n{packed.log}")
        assert len({holder.job_id for holder in holders}) == 1
        killed = wait_until(lambda: training(whole, 1), 200, f"a run that goes on\n{packed.log}")[0]
        os.kill(killed.pid, signal.SIGKILL)
        for asked in cancelled:
            assert asked.result().returncode == 0, asked.result().stderr
    assert driver.wait(timeout=240) == 0, packed.log
    assert {look(run).state for run in unwanted} == {State.STOPPED}
    assert_all_ended_as(whole, alone.runs("tiny"))
    wait_until(lambda: not list(packs_of(packed).living()), 60, "the pack's end")


def cancel_in_mid_training(desk: Desk, run: RunFolder) -> "subprocess.CompletedProcess[str]":
    """Its process stands still until it is asked to end: it would be done before the command has loaded."""
    (holder,) = wait_until(lambda: training([run], 1), 200, f"{run.name} trains\n{desk.log}")
    os.kill(holder.pid, signal.SIGSTOP)
    with ThreadPoolExecutor() as threads:
        cancelled = threads.submit(desk.run, "cancel.py", f"tiny/{run.name}", "--yes", timeout=100)
        wait_until(run.stopped.exists, 60, f"{run.name} is asked to end")
        os.kill(holder.pid, signal.SIGCONT)
        return cancelled.result()


def training(runs: list[RunFolder], count: int) -> list[Holder]:
    """The processes that train, once there are so many with an epoch done."""
    found = [living_holder(run.lock) for run in runs if run.stage(1).last.exists()]
    living = [holder for holder in found if holder is not None and holder.pid]
    return living if len(living) >= count else []


def test_a_run_that_cannot_begin_takes_no_other_with_it(corpus, tmp_path):
    config = experiment(corpus)
    run = RunFolder(tmp_path / "study" / config.run_name)
    run.create(config)
    pack = Pack(str(tmp_path / "study" / "packs" / "1"), places=1, ranks=1, cpus=1)
    pack.of_pack.tickets.mkdir(parents=True)
    code = tmp_path / "0123456789ab"
    code.mkdir()
    waiting = Packs.of_study(pack.study).waiting / f"{run.name}.json"
    waiting.parent.mkdir()
    Ticket(task={"path": str(run.path), "number": 1, "threads": 1}, code=str(code)).write(waiting)
    pack._work({}, PreemptionFlag(), Place(job_id="7", cluster="local"))
    assert look(run).state == State.FAILED
    assert "is not as it was when it was copied" in look(run).error
    assert not waiting.exists() and not list(pack.of_pack.tickets.iterdir())


def test_a_profile_is_shared_evenly(tmp_path):
    packed = Profile(tasks_per_node=8, gpus_per_node=8, cpus_per_task=6, mem_gb=400, runs_per_node=4)
    assert (packed.world_size, packed.of_run().tasks_per_node, packed.of_run().gpus_per_node) == (2, 2, 2)
    assert (packed.of_pack(4).tasks_per_node, packed.of_pack(4).cpus_per_task) == (1, 48)
    small = Profile(tasks_per_node=4, gpus_per_node=1, runs_per_node=4)
    assert (small.of_run().gpus_per_node, small.world_size) == (1, 1)
    pack = Pack.of(tmp_path / "packs" / "1", packed, 4)
    assert (pack.places, pack.ranks, pack.cpus, pack.gpus, pack.memory) == (4, 2, 6, 8, "102400M")
    assert Pack.of(tmp_path / "packs" / "1", small, 4).memory == "0"
    # What one run less would need is given back, but for a GPU that others share.
    rest, shared = packed.of_pack(3), small.of_pack(3)
    assert (rest.cpus_per_task, rest.gpus_per_node, rest.mem_gb) == (36, 6, 300)
    assert (shared.cpus_per_task, shared.gpus_per_node, shared.mem_gb) == (3, 1, None)
    assert Pack.of(tmp_path / "packs" / "1", packed, 3).gpus == 6


def test_small_runs_share_each_gpu(tmp_path, monkeypatch):
    """Seen by what the processes of each run get, on one machine and of srun."""
    profile = Profile(gpus_per_node=2, runs_per_gpu=2)
    assert (profile.runs_per_node, profile.tasks_per_node, profile.world_size) == (4, 4, 1)
    assert Profile.model_validate(profile.of_run().model_dump()).gpus_per_node == 1
    pack = Pack.of(tmp_path / "study" / "packs" / "1", profile, 4)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,7")
    assert [pack._variables(number, 0)[GPUS] for number in range(4)] == ["5", "7", "5", "7"]
    told = tmp_path / "told"
    (tmp_path / "srun").write_text(f'#!/bin/sh\necho "$SIA_GPUS" "$@" >> {told}\n')
    (tmp_path / "srun").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    for number in range(4):
        pack._srun(TrainStage(str(tmp_path / "run"), 1, 1), ["python"], number, Place(job_id="7")).wait()
    lines = told.read_text().splitlines()
    assert [line.split()[0] for line in lines] == ["0", "1", "0", "1"]
    assert all("--overlap" in line and "--gpus-per-node=2" in line for line in lines)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("nodes: 2\nruns_per_node: 2\ntasks_per_node: 2", "needs nodes: 1"),
        ("runs_per_node: 3\ntasks_per_node: 8", "cannot be shared by 3 runs"),
        ("runs_per_node: 6\ntasks_per_node: 6\ngpus_per_node: 4", "evenly by 6 runs"),
        ("runs_per_gpu: 2", "needs gpus_per_node"),
        ("runs_per_gpu: 2\ngpus_per_node: 4\nruns_per_node: 4", "makes 8 runs of one rank a node; leave runs_per_node"),
        ("runs_per_gpu: 2\ngpus_per_node: 4\ntasks_per_node: 16", "makes 8 runs of one rank a node; leave runs_per_no"),
        ("runs_per_gpu: none\ngpus_per_node: 4", "runs_per_gpu: give a whole number"),
    ],
)
def test_a_profile_that_cannot_be_shared_is_refused(tmp_path, text, said):
    (tmp_path / "bad.yaml").write_text(text)
    with pytest.raises(UsageError, match=f"bad.yaml.*{said}"):
        load_profile(tmp_path / "bad.yaml")


def test_packs_are_asked_for_as_places_are_wanted(tmp_path):
    packs = Packs.of_study(tmp_path)
    packs.waiting.mkdir(parents=True)
    ticket = Ticket(task={}, code="")
    for number in (1, 2, 0):
        ticket.write(packs.waiting / f"run-{number}.json")
    assert [path.stem for path in packs.in_turn()] == ["run-1", "run-2", "run-0"]
    assert packs.are_too_few(2)
    living_pack(packs.path / "1")
    assert packs.are_too_few(2)
    living_pack(packs.path / "2")
    assert not packs.are_too_few(2)
    # A run that a pack has taken keeps its place.
    (packs.waiting / "run-0.json").rename(packs.path / "1" / "runs" / "run-0.json")
    assert packs.know("run-0.json") and not packs.are_too_few(2)
    ticket.write(packs.waiting / "run-3.json")
    ticket.write(packs.waiting / "run-4.json")
    assert packs.are_too_few(2)
    # What a pack had that is gone is known no more.
    PackFolder(packs.path / "1").job.unlink()
    assert not packs.know("run-0.json")
    assert packs.another() == packs.path / "1"


def test_the_last_pack_asks_for_no_more_than_the_runs_left(tmp_path, monkeypatch):
    submitted = []

    def taken(pack: Pack, cluster: str, asked: Profile, code: Path) -> None:
        submitted.append((pack.places, asked.cpus_per_task, asked.mem_gb))
        living_pack(pack.of_pack.path)

    monkeypatch.setattr("sia.cluster.pack_job.submit", taken)
    profile, packs = Profile(tasks_per_node=4, runs_per_node=4, mem_gb=8), Packs.of_study(tmp_path)
    runs = [tmp_path / f"run-{number}" for number in range(7)]
    for run in runs:
        run.mkdir()
        (run / "config.yaml").touch()
    (runs[6] / "finished.json").touch()
    for run in runs[:6]:
        ask_for_place(TrainStage(str(run), 1, 1), "slurm", profile, tmp_path)
    assert submitted == [(4, 4, 8), (2, 2, 4)]
    assert not packs.are_too_few(4)


def test_a_pack_that_was_refused_is_no_larger_than_the_profile_that_mends_it(tmp_path, monkeypatch):
    asked = []

    def refused(pack: Pack, *_: object) -> None:
        asked.append(pack.places)
        raise UserError("more than a node has")

    monkeypatch.setattr("sia.cluster.pack_job.submit", refused)
    for number in range(4):
        (tmp_path / f"run-{number}").mkdir()
        (tmp_path / f"run-{number}" / "config.yaml").touch()
    for most in (4, 2):
        with pytest.raises(UserError):
            profile = Profile(tasks_per_node=most, runs_per_node=most)
            ask_for_place(TrainStage(str(tmp_path / "run-0"), 1, 1), "slurm", profile, tmp_path)
    assert asked == [4, 2]


def test_a_machine_has_one_pack(tmp_path, monkeypatch):
    submitted = []
    monkeypatch.setattr("sia.cluster.pack_job.submit", lambda pack, *_: submitted.append(pack))
    task, profile = TrainStage(str(tmp_path / "run"), 1, 1), Profile(tasks_per_node=2, runs_per_node=2)
    ask_for_place(task, "local", profile, tmp_path)
    assert len(submitted) == 1 and Packs.of_study(tmp_path).know("run.json")
    living_pack(Packs.of_study(tmp_path).path / "1")
    for number in range(3):
        ask_for_place(replace(task, path=str(tmp_path / f"run-{number}")), "local", profile, tmp_path)
    assert len(submitted) == 1 and len(Packs.of_study(tmp_path).in_turn()) == 4


def living_pack(folder: Path) -> None:
    (folder / "runs").mkdir(parents=True, exist_ok=True)
    here = {"host": os.uname().nodename, "folder": "python", "time": time.time()}
    Job(cluster="local", job_id=str(os.getpid()), **here).write(folder / "job.json")


@pytest.mark.slurm
@pytest.mark.slow
def test_runs_in_two_jobs_survive_a_kill_and_a_preemption(corpus, tmp_path):
    profile = {"partition": "dev", "timeout_min": 20, "tasks_per_node": 2, "runs_per_node": 2}
    desk = desk_with(tmp_path / "packed", corpus, profile, [1, 2], [4, 8])
    driver = desk.start(*SUBMIT, "--cluster", "slurm", "--profile", "pack.yaml")
    runs = wait_until(lambda: len(desk.runs("tiny")) == 4 and desk.runs("tiny"), 60, "the runs")
    holders = wait_until(lambda: training(runs, 3), 300, f"runs that train\n{desk.log}")
    killed = next(one for one in holders if [other.job_id for other in holders].count(one.job_id) == 2)
    preempted = next(one for one in holders if one.job_id != killed.job_id)
    os.kill(killed.pid, signal.SIGKILL)
    subprocess.run(["scancel", "--signal=USR2", preempted.job_id], check=True)
    assert driver.wait(timeout=500) == 0, desk.log
    lives = {}
    for run in runs:
        assert look(run).state == State.FINISHED
        lives[run.name] = [row["job_id"] for row in read_rows(run.provenance) if row["stage"] == 1]
    assert set().union(*lives.values()) == {killed.job_id, preempted.job_id}, "no third job was asked for"
    beside_the_killed = [of for of in lives.values() if of == [killed.job_id]]
    assert beside_the_killed, "who shared the job with the killed run had one life"
    # Neither the neighbour nor the interruption shows in what was learnt.
    alone = desk_with(tmp_path / "alone", corpus, {}, [1], [4, 8])
    assert alone.run(*SUBMIT, "--cluster", "local", "--profile", "pack.yaml", timeout=240).returncode == 0
    names = [run.name for run in alone.runs("tiny")]
    assert_all_ended_as([run for run in runs if run.name in names], alone.runs("tiny"))
