"""Studies on the cluster in a box: what Slurm knows of a job, a job's processes, and what a study must end with."""

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import stages
import torch
from desk import REPOSITORY, Desk, assert_every_epoch_once, in_mid_stage, job_of, mlflow_history, test_rows, wait_until

from sia.run.folder import RunFolder
from sia.run.lock import NOBODY_KNOWS, holder_of
from sia.run.metrics import read_rows
from sia.run.state import State, look

EPOCHS = 6  # of the first stage: a fault lands after its first epoch, and a fast machine takes 0.3 s for each
CHAIN = [{"epochs": EPOCHS, "schedule": "calr"}, {"epochs": 1, "schedule": "calr", "lr_scale": 0.5}]
ALL_EPOCHS = EPOCHS + 1
GONE = (ProcessLookupError, FileNotFoundError, PermissionError)


def slurm(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, timeout=90, check=True).stdout.strip()


def in_queue(job: str) -> str:
    """The job's state, "" once it has left the queue."""
    return subprocess.run(["squeue", "-h", "-j", job, "-o", "%T"], capture_output=True, text=True).stdout.strip()


def restarts(job: str) -> int:
    shown = subprocess.run(["scontrol", "show", "job", job], capture_output=True, text=True).stdout
    return int(shown.partition("Restarts=")[2].split()[0]) if "Restarts=" in shown else 0


def devcluster() -> Path:
    """The folder of the cluster in a box; a test that ends its daemons must not do so to any other."""
    root = Path(os.environ.get("SLURM_CONF", "/etc/slurm/slurm.conf")).parent
    if not (root / "run" / "slurmctld.pid").exists() or root.stat().st_uid != os.getuid():
        pytest.skip("not on slurm/devcluster, whose daemons alone a test may end")
    return root


def kill_daemon(name: str) -> int:
    """SIGKILL to a daemon of the cluster in a box; its former process number."""
    pid = int((devcluster() / "run" / f"{name}.pid").read_text())
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not alive(pid), 10, f"the end of {name}")
    return pid


def repair_cluster() -> None:
    """Start again what was killed, as a person does: by `up`."""
    root = devcluster()
    bare = [] if (root / "slurmdbd.conf").exists() else ["--no-accounting"]
    command = [str(REPOSITORY / "slurm" / "devcluster" / "up"), *bare]
    environment = {**os.environ, "SIA_DEVCLUSTER": str(root)}
    subprocess.run(command, env=environment, capture_output=True, timeout=120, check=True)


def alive(pid: int) -> bool:
    return state_of(pid) not in ("", "Z")


def state_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except GONE:
        return ""


def processes_of(job: str) -> dict[int, dict[str, str]]:
    """The environments of the job's processes, by their numbers."""
    found = {}
    for place in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(*GONE, OSError):
            pairs = (text.partition("=") for text in (place / "environ").read_bytes().decode().split("\0"))
            environment = {name: value for name, _, value in pairs}
            # Another cluster on this machine counts its jobs from 1, too.
            if (environment.get("SLURM_JOB_ID"), environment.get("SLURM_CONF")) == (job, os.environ["SLURM_CONF"]):
                found[int(place.name)] = environment
    return found


def ranks_of(job: str) -> dict[int, int]:
    """The process of each of the job's ranks."""
    ranks = {}
    for pid, environment in processes_of(job).items():
        with contextlib.suppress(*GONE):
            program, *rest = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            if b"python" in Path(program.decode()).name.encode() and b"submitit.core._submit" in rest:
                ranks[int(environment["SLURM_PROCID"])] = pid
    return ranks


def send(number: int, pids: Iterable[int]) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


@dataclass(frozen=True)
class Caught:
    """A job that is stopped in the middle of its first stage."""

    job: str
    ranks: dict[int, int]
    epochs: int  # that it had recorded


@contextlib.contextmanager
def caught_in_mid_stage(run: RunFolder, epochs: int = 1) -> Iterator[Caught]:
    """Stop the run's job in its first stage, so that a fault lands there however fast the machine is."""
    wait_until(lambda: in_mid_stage(run, 1, epochs) or run.stage(1).done.exists(), 200, f"epoch {epochs} of {run.path}")
    assert not run.stage(1).done.exists(), "the stage was over before it was caught"
    job = job_of(run)
    ranks = ranks_of(job)
    send(signal.SIGSTOP, ranks.values())
    try:
        wait_until(lambda: {state_of(pid) for pid in ranks.values()} == {"T"}, 10, f"the stop of job {job}")
        holder = holder_of(run.lock) or NOBODY_KNOWS
        assert (holder.stage, holder.job_id, holder.pid) == (1, job, ranks[0])
        assert not run.stage(1).done.exists() and not run.stage(1).failed.exists()
        yield Caught(job, ranks, len(stages.rows(run)))
    finally:
        send(signal.SIGCONT, ranks.values())


def progress(run: RunFolder) -> tuple[dict[str, Any], int]:
    """How far the latest checkpoint is: the stage's progress, and the next batch of its epoch."""
    stage = run.stage(1)
    content = torch.load(stage.partial if stage.partial.exists() else stage.last, weights_only=True)
    return content["progress"], content["sampler"]["next_batch"]


def assert_saved_in_mid_epoch(run: RunFolder) -> None:
    saved, next_batch = progress(run)
    place = f"batch {next_batch} after {saved['epochs_done']} epochs, loss {saved['loss_sum']}"
    assert next_batch > 0 and saved["loss_sum"] > 0 and 0 < saved["epochs_done"] < EPOCHS, place


def jobs_that_trained(run: RunFolder, stage: int = 1) -> list[str]:
    return [row["job_id"] for row in read_rows(run.provenance) if row["stage"] == stage]


def next_job(run: RunFolder, former: str) -> str:
    """The job that the driver submits in the place of one that is gone."""
    found = wait_until(lambda: job_of(run) != former and job_of(run), 180, f"a job after {former} of {run.path}")
    return str(found)


def cancel_all(desk: Desk, study: str) -> None:
    """So that a test that failed leaves no job behind."""
    jobs = [job_of(run, number) for run in desk.runs(study) for number in (1, 2)]
    subprocess.run(["scancel", *[job for job in jobs if job]], capture_output=True)


@contextlib.contextmanager
def ended_in_any_case(desk: Desk, study: str, driver: "subprocess.Popen[str]") -> Iterator[None]:
    """No driver and no job outlives the test."""
    try:
        yield
    finally:
        if driver.poll() is None:
            driver.kill()
            driver.wait()
        cancel_all(desk, study)


def assert_nothing_lost(desk: Desk, run: RunFolder) -> None:
    """Finished as without a fault: each epoch once on disk and once in MLflow, and no part of a file."""
    assert look(run).state == State.FINISHED
    assert_every_epoch_once(run, ALL_EPOCHS)
    assert len(test_rows(run)) == 1
    histories = mlflow_history(desk.uri, run.study)
    assert histories[run.name]["train/loss"] == list(range(1, ALL_EPOCHS + 1))
    assert histories[f"{run.name}/1"]["selection/R_at_10"] == list(range(1, EPOCHS + 1))
    assert histories[f"{run.name}/2"]["selection/R_at_10"] == [ALL_EPOCHS]
    assert not run.lock.exists() and not list((run.path / "stages").rglob(".*"))
    steps = stages.saved(run.stage(1).last)["progress"]["step"]
    assert steps == EPOCHS * len_epoch(run), "no step was taken twice, none left out"


def len_epoch(run: RunFolder) -> int:
    """Steps an epoch: 15 captions of each of 16 images."""
    return 16 * 15 // run.experiment().training.batch_size


def assert_same_bits(run: RunFolder, undisturbed: RunFolder) -> None:
    """Weights, optimizer and rows of a run are those of another one on as many ranks, which nothing disturbed."""
    assert stages.rows(run) == stages.rows(undisturbed)
    for number in (1, 2):
        for name in ("last", "best"):
            here, there = (stages.saved(getattr(one.stage(number), name)) for one in (run, undisturbed))
            assert all(stages.same(here[part], there[part]) for part in ("model", "optimizer", "sampler")), name
