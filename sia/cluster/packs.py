"""Several runs of a study in one allocation (`runs_per_node`): their tickets, and the allocations there are.

A stage that is to be trained leaves a ticket in the study's `packs/waiting/`. A pack is one job (pack_job.py), which
takes a ticket for each of its places into its own folder; a run that ends makes room for the next ticket.
It loads no torch.
"""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock

from sia.cluster.end_jobs import cancel_jobs
from sia.cluster.stage_job import TrainStage
from sia.run.folder import File
from sia.run.queue import is_in_queue
from sia.run.records import Job, Record


class Ticket(Record):
    """RUN.json: a stage that waits for a place, or has one, and the folder of the code that trains it."""

    task: dict[str, Any]
    code: str

    @property
    def stage(self) -> TrainStage:
        return TrainStage(**self.task)


class Size(Record):
    """size.json: for how many runs at once a pack has room."""

    places: int


@dataclass(frozen=True)
class PackFolder:
    """`packs/N/`: a pack's size, its job, its logs, and the tickets of the runs that it has."""

    path: Path
    job = File("job.json")
    size = File("size.json")
    tickets = File("runs")

    def lives(self) -> bool:
        """Whether its job is in the queue, or nobody can tell."""
        job = Job.read(self.job)
        return job is not None and is_in_queue(job)


@dataclass(frozen=True)
class Packs:
    """A study's packs."""

    path: Path
    waiting = File("waiting")

    @classmethod
    def of_study(cls, study: Path) -> "Packs":
        return cls(study / "packs")

    @property
    def lock(self) -> FileLock:
        return FileLock(self.path / "asking.lock")

    @property
    def numbers(self) -> list[int]:
        return [int(path.name) for path in self.path.glob("*") if path.name.isdecimal()]

    def living(self) -> Iterator[PackFolder]:
        return (pack for number in self.numbers if (pack := PackFolder(self.path / str(number))).lives())

    def another(self) -> Path:
        """The folder of the next pack: one whose submission was killed, whose job may be in the queue, or a new one."""
        begun = (number for number in self.numbers if not PackFolder(self.path / str(number)).job.exists())
        return self.path / str(next(begun, max([0, *self.numbers]) + 1))

    def in_turn(self) -> list[Path]:
        """The tickets that wait, the eldest first."""
        times = {}
        for ticket in self.waiting.glob("*.json"):
            with suppress(FileNotFoundError):
                times[ticket] = ticket.stat().st_mtime_ns
        return sorted(times, key=times.__getitem__)

    def know(self, ticket: str) -> bool:
        """Whether a run's ticket waits, or a living pack has it."""
        return (self.waiting / ticket).exists() or any((pack.tickets / ticket).exists() for pack in self.living())

    def are_too_few(self, most: int) -> bool:
        """Whether more runs wait or train than the living packs have places for. most: places of a whole node."""
        tickets = (self.waiting, *(pack.tickets for pack in self.living()))
        return sum(1 for folder in tickets for _ in folder.glob("*.json")) > self._places(most)

    def places_of_another(self, most: int) -> int:
        """So many of a node as the study has runs that are at no end, beyond the places of living packs."""
        runs = (config.parent for config in self.path.parent.glob("*/config.yaml"))
        left = sum(1 for run in runs if not ((run / "finished.json").exists() or (run / "stopped.json").exists()))
        return max(1, min(most, left - self._places(most)))

    def _places(self, most: int) -> int:
        sizes = [Size.read_sound(pack.size) for pack in self.living()]
        return sum(size.places if size else most for size in sizes)


def end_empty_packs(study: Path) -> None:
    """End those that wait for their allocation while no run waits for a place; one that began leaves by itself."""
    packs = Packs.of_study(study)
    if not any(packs.waiting.glob("*.json")):
        empty = [pack.job for pack in packs.living() if not any(pack.tickets.glob("*.json"))]
        cancel_jobs([job for path in empty if (job := Job.read(path)) is not None])
