"""Studies on the cluster in a box: what Slurm knows of a job, a job's processes, and what a study must end with."""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import stages
import torch
from desk import REPOSITORY, Desk, assert_every_epoch_once, in_mid_stage, job_of, mlflow_history, test_rows

from sia.atomic import read_json
from sia.cluster.end_jobs import processes
from sia.run.folder import RunFolder
from sia.run.lock import NOBODY_KNOWS, holder_of
from sia.run.queue import QUEUE
from sia.run.row_files import read_rows
from sia.run.state import State, look

EPOCHS = 8  # of the first stage: faults land after its first ones, and a fast machine takes 0.3 s for each
CHAIN = [{"epochs": EPOCHS, "schedule": "calr"}, {"epochs": 1, "schedule": "calr", "lr_scale": 0.5}]
MOST_SECONDS = 400.0  # a busy machine does not take so long for any of it: whatever is waited for never comes
SUBMIT = ("submit.py", "--grid", "tiny.yaml", "--cluster", "slurm")
NONE = ("--scheduler", "none")


def slurm(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, timeout=90, check=True).stdout.strip()


def wait_for(condition: Callable[[], Any], what: str, every: float = 0.2) -> Any:
    """What `condition` returns once it is true. Fails with the states of jobs and nodes where it never is."""
    deadline = time.monotonic() + MOST_SECONDS
    while not (found := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"never came: {what}\n{states()}")
        time.sleep(every)
    return found


def states() -> str:
    commands = (["squeue", "--states=all", "-o", "%i %j %T %r %M/%l %N"], ["sinfo", "-N", "-o", "%N %t %C %E"])
    return "\n".join(subprocess.run(one, capture_output=True, text=True).stdout for one in commands)


def state(run: RunFolder) -> State:
    """As it is now, whatever the queue said to this process before."""
    QUEUE.forget()
    return look(run).state


def in_queue(job: str) -> str:
    """The job's state, "" once it has left the queue."""
    return subprocess.run(["squeue", "-h", "-j", job, "-o", "%T"], capture_output=True, text=True).stdout.strip()


def restarts(job: str) -> int:
    shown = subprocess.run(["scontrol", "show", "job", job], capture_output=True, text=True).stdout
    return int(shown.partition("Restarts=")[2].split()[0]) if "Restarts=" in shown else 0


@contextlib.contextmanager
def held_job() -> Iterator[str]:
    """A job that waits until it is released."""
    job = slurm("sbatch", "--parsable", "--partition=dev", "--output=/dev/null", "--hold", "--wrap", "true")
    try:
        yield job
    finally:
        subprocess.run(["scancel", job], capture_output=True)


def kill_daemon(name: str) -> int:
    """SIGKILL to a daemon of the test's own cluster in a box; its former process number."""
    root = Path(os.environ["SLURM_CONF"]).parent
    assert root.name.startswith("sia-bare-"), "other tests need the daemons of any other cluster"
    pid = int((root / "run" / f"{name}.pid").read_text())
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: not alive(pid), f"the end of {name}")
    return pid


def controller_saves(job: str) -> None:
    """Wait until the controller's state on disk knows how the job is now: killed earlier, it would start it again."""
    state = Path(os.environ["SLURM_CONF"]).parent / "state" / "job_state"
    before = state.stat().st_mtime_ns if state.exists() else 0
    slurm("scontrol", "update", f"jobid={job}", "comment=known")
    wait_for(lambda: state.exists() and state.stat().st_mtime_ns > before, "the controller's state on disk")


def repair_cluster() -> None:
    """Start again what was killed, as a person does: by `up`."""
    command = [str(REPOSITORY / "slurm" / "devcluster" / "up"), "--no-accounting"]
    environment = {**os.environ, "SIA_DEVCLUSTER": str(Path(os.environ["SLURM_CONF"]).parent)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, f"{done.stderr}\n{slurm('sinfo')}\n{slurm('squeue')}"


def alive(pid: int) -> bool:
    return state_of(pid) not in ("", "Z")


def state_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return ""


def processes_of(job: str) -> dict[int, dict[str, str]]:
    """The environments of the job's processes, by their numbers."""
    found = {}
    for pid, _ in processes(f"SLURM_JOB_ID={job}"):
        with contextlib.suppress(OSError):
            pairs = (text.partition("=") for text in Path(f"/proc/{pid}/environ").read_bytes().decode().split("\0"))
            environment = {name: value for name, _, value in pairs}
            # Another cluster on this machine counts its jobs from 1, too.
            if environment.get("SLURM_CONF") == os.environ["SLURM_CONF"]:
                found[pid] = environment
    return found


def ranks_of(job: str) -> dict[int, int]:
    """The process of each of the job's ranks."""
    ranks = {}
    for pid, environment in processes_of(job).items():
        with contextlib.suppress(OSError):
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
def caught_in_mid_stage(run: RunFolder) -> Iterator[Caught]:
    """Stop the run's job in its first stage, after another epoch, so that a fault lands there on any machine."""
    epochs = len(stages.rows(run)) + 1
    wait_for(
        lambda: in_mid_stage(run, 1, epochs) or run.stage(1).done.exists(), f"epoch {epochs} of {run.path}", every=0.02
    )
    assert not run.stage(1).done.exists(), "the stage was over before it was caught"
    job = job_of(run)
    ranks = ranks_of(job)
    send(signal.SIGSTOP, ranks.values())
    try:
        wait_for(lambda: {state_of(pid) for pid in ranks.values()} == {"T"}, f"the stop of job {job}")
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
    return str(wait_for(lambda: job_of(run) != former and job_of(run), f"a job after {former} of {run.path}"))


def driver_job(desk: Desk) -> str:
    """That of the detached driver of study tiny."""
    return str((read_json(desk.folder / "runs" / "tiny" / "driver.json") or {"job_id": ""})["job_id"])


@dataclass(frozen=True)
class Study:
    """The study tiny of a desk, under a driver of its own."""

    desk: Desk
    driver: "subprocess.Popen[str]"

    def runs(self, count: int = 1) -> list[RunFolder]:
        """Once there are so many, or the driver has ended."""
        wait_for(lambda: len(self.desk.runs("tiny")) == count or self.driver.poll() is not None, "run folders")
        assert len(self.desk.runs("tiny")) == count, self.desk.log
        return self.desk.runs("tiny")

    def reaches_its_end(self) -> None:
        wait_for(lambda: self.driver.poll() is not None, f"the driver's end\n{self.desk.log}")
        assert self.driver.returncode == 0, self.desk.log


def write_study(desk: Desk, grid: dict[str, Any], **profile: Any) -> None:
    desk.write("profile.yaml", {"partition": "dev", "timeout_min": 20, **profile})
    desk.write("tiny.yaml", {"study": "tiny", "profile": "profile.yaml", **grid})


@contextlib.contextmanager
def submitted(desk: Desk, *flags: str) -> Iterator[Study]:
    """What `write_study` wrote is driven; no driver and no job outlives the test."""
    with no_job_left(desk):
        driver = desk.start(*SUBMIT, *flags)
        try:
            yield Study(desk, driver)
        finally:
            if driver.poll() is None:
                driver.kill()
                driver.wait()


@contextlib.contextmanager
def no_job_left(desk: Desk) -> Iterator[None]:
    try:
        yield
    finally:
        jobs = [driver_job(desk), *(job_of(run, number) for run in desk.runs("tiny") for number in (1, 2))]
        subprocess.run(["scancel", *[job for job in jobs if job]], capture_output=True)


def assert_nothing_lost(desk: Desk, run: RunFolder) -> None:
    """Finished as without a fault: each epoch once on disk and once in MLflow, and no part of a file."""
    assert state(run) == State.FINISHED
    first, every = EPOCHS, sum(stage.epochs for stage in run.experiment().stages)
    assert_every_epoch_once(run, every)
    assert len(test_rows(run)) == 1
    histories = mlflow_history(desk.uri, run.study)
    assert histories[run.name]["train/loss"] == list(range(1, every + 1))
    assert histories[f"{run.name}/1"]["selection/R_at_10"] == list(range(1, first + 1))
    assert every == first or histories[f"{run.name}/2"]["selection/R_at_10"] == list(range(first + 1, every + 1))
    assert not run.lock.exists() and not list((run.path / "stages").rglob(".*"))
    # 15 captions of each of 16 images
    steps = stages.saved(run.stage(1).last)["progress"]["step"]
    assert steps == first * (16 * 15 // run.experiment().training.batch_size), "no step twice, none left out"


def assert_same_bits(run: RunFolder, undisturbed: RunFolder) -> None:
    """Weights, optimizer and rows of a run are those of another one on as many ranks, which nothing disturbed."""
    assert stages.rows(run) == stages.rows(undisturbed)
    for number in range(1, 1 + len(run.experiment().stages)):
        for name in ("last", "best"):
            here, there = (stages.saved(getattr(one.stage(number), name)) for one in (run, undisturbed))
            assert all(stages.same(here[part], there[part]) for part in ("model", "optimizer", "sampler")), name
