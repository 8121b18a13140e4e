"""A corpus, prepared one shard a task: by a job array on Slurm, or by processes on one machine."""

from collections.abc import Iterator, Sequence
from concurrent.futures import as_completed
from dataclasses import dataclass
from pathlib import Path

from sia.cluster.array import Element, carried_out
from sia.cluster.profile import Cluster, Profile
from sia.cluster.task import JobFiles
from sia.data.corpus_record import Description
from sia.data.manifest import Images
from sia.data.prepare import finish, is_written, pieces_of, plan, read_piece, read_plan, write_pieces, write_shard
from sia.orphans import pool, usable_cores
from sia.progress import tracked


@dataclass(frozen=True)
class WriteShard(Element):
    """Write shard `number` of the corpus that is planned in `out`."""

    out: str
    number: int

    @property
    def files(self) -> JobFiles:
        jobs = Path(self.out) / "jobs"
        return JobFiles(f"prepare {Path(self.out).name}", jobs, jobs / f"shard-{self.number:05d}.json")

    @property
    def is_done(self) -> bool:
        return is_written(Path(self.out), self.number)

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
    allowed: Sequence[Path] = (),
    replace: bool = False,
) -> Description:
    """Plan, write the shards, and finish; what was prepared is returned. What was done before is kept.

    Raises UserError for a corpus that is not there, for a task that failed, and for a finished corpus that would
    become another one, unless `replace` insists.
    """
    num_shards = plan(name, root or out / "raw", out, num_shards, short_side, limit, images, allowed, replace)
    written = write_shards(out, num_shards, cluster, profile or Profile())
    for _ in tracked(written, f"{out.absolute().name}: shards", num_shards):
        pass
    return finish(out, replace)


def write_shards(out: Path, num_shards: int, cluster: Cluster, profile: Profile) -> Iterator[int]:
    """Write the shards that are not there yet; yields each shard's number as it is there.

    Raises UserError where a task ended without its shard.
    """
    tasks = [WriteShard(str(out.absolute()), number) for number in range(num_shards)]
    missing = [task for task in tasks if not task.is_done]
    yield from (task.number for task in tasks if task not in missing)
    if missing:
        written = carried_out(missing, profile) if cluster == "slurm" else _on_this_machine(missing)
        yield from (task.number for task in written)


def _on_this_machine(missing: list[WriteShard]) -> Iterator[WriteShard]:
    """As many shards as keep every core at work are a task each; the rest are read in pieces, by all of them."""
    out, cores = Path(missing[0].out), usable_cores()
    planned, whole = read_plan(out), len(missing) // cores * cores
    with pool(cores) as workers:
        written = {workers.submit(write_shard, out, task.number): task for task in missing[:whole]}
        in_pieces = {
            task: [workers.submit(read_piece, planned, part) for part in pieces_of(out, task.number)]
            for task in missing[whole:]
        }
        for future in as_completed(written):
            future.result()
            yield written[future]
        for task in missing[whole:]:
            write_pieces(out, task.number, [future.result() for future in in_pieces.pop(task)])
            yield task
