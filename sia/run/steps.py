"""steps.jsonl: what training comes to and costs, a row every few seconds. It loads no torch.

Its lines are chained as those of metrics.jsonl, but nothing depends on it: where it is damaged or cannot be written,
training goes on. A row takes some 350 bytes: at one every ten seconds, a run of three days writes 9 MB.
"""

import sys
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from sia.errors import UserError
from sia.run.folder import RunFolder
from sia.run.row_files import Appender, read_sound_rows, read_tail, write_rows

TAIL_BYTES = 2048
PLACE = ("stage", "epoch", "step", "batch", "batches", "time")


class StepRow(BaseModel):
    """The steps since the row before. Times, memory and waiting are those of the rank that has most of it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    stage: int
    epoch: int  # of the run, from 1
    step: int  # of the run, from 1
    batch: int  # so many of the epoch's batches are done
    batches: int
    time: float
    loss: float  # the mean
    learning_rate: float  # of the last step
    pairs_per_second: float
    seconds_waiting: float  # for data
    peak_memory_gb: float  # of this job until now; of a GPU, or a process on the CPU
    gradient_norm: float  # of the last step, before it is clipped

    @property
    def measures(self) -> dict[str, float]:
        """All but its place, as trackers name it."""
        return {f"step/{name}": value for name, value in self.model_dump(exclude=set(PLACE)).items()}

    @property
    def share_of_epoch(self) -> float:
        return self.batch / self.batches

    def __str__(self) -> str:
        return (
            f"stage {self.stage}, epoch {self.epoch}: {self.batch} of {self.batches}, loss {self.loss:.4f}, "
            f"rate {self.learning_rate:.3g}, {self.pairs_per_second:.3g} pairs/s, "
            f"{self.seconds_waiting:.1f} s waiting, {self.peak_memory_gb:.3g} GB, gradient {self.gradient_norm:.3g}"
        )


class StepWriter:
    """The one writer of a run's steps.jsonl."""

    def __init__(self, path: Path, step: int) -> None:
        """step: that of the run after which training goes on. Rows of later steps are of a job that died: they go."""
        self.path = path
        found = read_sound_rows(path)
        kept = [row for row in found.rows if row["step"] <= step]
        if found.fault or len(kept) < len(found.rows):
            write_rows(path, kept)
        self._file = Appender(path)

    def add(self, row: StepRow) -> None:
        try:
            self._file.append(row.model_dump(), flush=False)
        except (UserError, OSError) as error:
            print(f"warning: {self.path}: a row is left out: {error}", file=sys.stderr, flush=True)


def latest_step(run: RunFolder, epoch: int) -> StepRow | None:
    """The last row, where it is later than this epoch of the run and can be read. An epoch is saved beside the next."""
    rows = _tail(run.steps, TAIL_BYTES)
    return rows[-1] if rows and rows[-1].epoch > epoch else None


def latest_steps(run: RunFolder, size: int) -> list[StepRow]:
    """The rows of the last `size` bytes; none where they are damaged, or not there."""
    return _tail(run.steps, size)


def steps_after(run: RunFolder, step: int) -> list[StepRow]:
    """The rows after a step of the run, read from the end; none where they are damaged."""
    size, whole = TAIL_BYTES, run.steps.stat().st_size if run.steps.exists() else 0
    while (rows := _tail(run.steps, size)) and rows[0].step > step and size < whole:
        size *= 8
    return [row for row in rows if row.step > step]


def _tail(path: Path, size: int) -> list[StepRow]:
    try:
        return [StepRow.model_validate(row) for row in read_tail(path, size) or []]
    except (OSError, ValidationError):
        return []
