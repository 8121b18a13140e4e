"""Prepare a corpus: a job array on Slurm, processes on one machine; one shard a task."""

import multiprocessing
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from sia.cluster.array import carried_out
from sia.cluster.profile import Cluster, Profile
from sia.cluster.shard_job import WriteShard
from sia.data.caption_files import Images
from sia.data.prepare import finish, is_written, plan
from sia.orphans import end_with
from sia.progress import tracked


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
    allowed: Sequence[Path] = (),
    replace: bool = False,
) -> dict[str, Any]:
    """Plan, write the shards, and finish; what was prepared is returned. What was done before is kept.

    Raises UserError for a corpus that is not there, for a task that failed, and for a finished corpus that would
    become another one, unless `replace` insists.
    """
    num_shards = plan(name, root or out / "raw", out, num_shards, short_side, limit, images, allowed, replace)
    for _ in tracked(write_shards(out, num_shards, cluster, profile or Profile()), f"{name}: shards", num_shards):
        pass
    return finish(out, replace)


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
    workers = min(os.cpu_count() or 1, len(missing))
    with ProcessPoolExecutor(workers, context, initializer=end_with, initargs=(os.getpid(),)) as pool:
        numbers = {pool.submit(WriteShard(str(out.absolute()), number)): number for number in missing}
        for future in as_completed(numbers):
            future.result()
            yield numbers[future]


def _on_slurm(out: Path, missing: list[int], profile: Profile) -> Iterator[int]:
    tasks = [WriteShard(str(out.absolute()), number) for number in missing]
    one_process = profile.model_copy(update={"nodes": 1, "tasks_per_node": 1, "gpus_per_node": 0})
    for task in carried_out(tasks, one_process, lambda task: is_written(out, task.number)):
        yield task.number
