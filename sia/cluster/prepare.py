"""Prepare a corpus: a job array on Slurm, processes on one machine; one shard a task."""

import multiprocessing
import os
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sia.cluster.profile import Cluster, Profile
from sia.cluster.state import is_in_queue
from sia.data.prepare import finish, is_written, plan, write_shard
from sia.data.usable import Images
from sia.errors import UserError
from sia.progress import tracked
from sia.run_folder import private_folder

POLL_SECONDS = 1.0


@dataclass(frozen=True)
class WriteShard:
    """The task of one shard."""

    out: str
    number: int

    def __call__(self) -> None:
        write_shard(Path(self.out), self.number)


def prepare_corpus(
    name: str,
    root: Path | None,
    out: Path,
    *,
    short_side: int,
    num_shards: int | None = None,
    limit: int | None = None,
    images: Images = "resized",
    cluster: Cluster = "local",
    profile: Profile | None = None,
) -> dict[str, Any]:
    """Plan, write the shards, and finish; what was prepared is returned. What was done before is kept.

    Raises UserError for a corpus that is not there, and for a task that failed.
    """
    num_shards = plan(name, root or out / "raw", out, num_shards, short_side, limit, images)
    for _ in tracked(write_shards(out, num_shards, cluster, profile or Profile()), f"{name}: shards", num_shards):
        pass
    return finish(out)


def write_shards(out: Path, num_shards: int, cluster: Cluster, profile: Profile) -> Iterator[int]:
    """Write the shards that are not there yet; yields each shard's number as it is there.

    Raises UserError where a task ended without its shard.
    """
    missing = [number for number in range(num_shards) if not is_written(out, number)]
    yield from sorted(set(range(num_shards)) - set(missing))
    if missing:
        yield from _on_slurm(out, missing, profile) if cluster == "slurm" else _on_this_machine(out, missing)


def _on_this_machine(out: Path, missing: list[int]) -> Iterator[int]:
    # Not forked: the parent may hold threads and open files.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(os.cpu_count() or 1, len(missing)), mp_context=context) as pool:
        numbers = {pool.submit(WriteShard(str(out.absolute()), number)): number for number in missing}
        for future in as_completed(numbers):
            future.result()
            yield numbers[future]


def _on_slurm(out: Path, missing: list[int], profile: Profile) -> Iterator[int]:
    from submitit import SlurmExecutor

    private_folder(out / "jobs")
    executor = SlurmExecutor(out / "jobs", max_num_timeout=1000)
    one_task = profile.model_copy(update={"nodes": 1, "tasks_per_node": 1, "gpus_per_node": 0})
    executor.update_parameters(**one_task.slurm_parameters(f"prepare {out.name}"))
    tasks = [WriteShard(str(out.absolute()), number) for number in missing]
    with executor.batch():
        jobs = [executor.submit(task) for task in tasks]
    waiting = dict(zip(missing, jobs, strict=True))
    while waiting:
        left = {number for number, job in waiting.items() if not _queued(job.job_id)}
        # The queue is asked before the files are looked for: a task that left in between has written its shard.
        for number in [number for number in waiting if is_written(out, number)]:
            del waiting[number]
            yield number
        if lost := sorted(left & waiting.keys()):
            logs = out / "jobs" / f"{waiting[lost[0]].job_id}_0_log.err"
            raise UserError(
                f"{out}: the task of shard {lost[0]} ended without writing it; see {logs}, then run it again"
            )
        time.sleep(POLL_SECONDS)


def _queued(job_id: str) -> bool:
    return is_in_queue({"cluster": "slurm", "job_id": job_id})
