"""The job of one shard of a corpus that is being prepared."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class WriteShard:
    """The task: write shard `number` of the corpus that is planned in `out`."""

    out: str
    number: int

    @property
    def name(self) -> str:
        return f"prepare {Path(self.out).name}"

    @property
    def jobs(self) -> Path:
        return Path(self.out) / "jobs"

    @property
    def job_record(self) -> Path:
        return self.jobs / f"shard-{self.number:05d}.json"

    @property
    def stopped(self) -> None:
        return None

    def __call__(self) -> None:
        # It loads torch: not where the task is only described.
        from sia.data.prepare import write_shard

        write_shard(Path(self.out), self.number)
