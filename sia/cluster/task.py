"""What a job carries out, and what submitit pickles of it: its name, which the job looks up in the code that it runs.

This module imports nothing of sia, and Bootstrap is pickled by value: unpickling loads no module of the code, and
comes after sia.gate.
"""

from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar


@dataclass(frozen=True)
class JobFiles:
    """What a task's job is called, and where its files lie.

    jobs: the folder of its pickle and logs. stopped: a marker: where it is there, a job that the cluster has just taken
    is ended again.
    """

    name: str
    jobs: Path
    job_record: Path
    stopped: Path | None = None


class Task(ABC):
    """A frozen dataclass of plain fields; called in every rank of its job."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    starts_steps: ClassVar[bool] = False  # it asks Slurm for steps of its own, and needs nothing itself

    @property
    @abstractmethod
    def files(self) -> JobFiles: ...

    @property
    def name(self) -> str:
        return self.files.name

    @property
    def jobs(self) -> Path:
        return self.files.jobs

    @property
    def job_record(self) -> Path:
        return self.files.job_record

    @abstractmethod
    def __call__(self) -> None: ...


@dataclass(frozen=True)
class Bootstrap:
    """A task, by its place in the code, such as `sia.cluster.stage_job:TrainStage`, and its fields."""

    kind: str
    fields: dict[str, Any]

    def task(self) -> Any:
        module, _, name = self.kind.partition(":")
        return getattr(import_module(module), name)(**self.fields)

    def __call__(self) -> Any:
        return self.task()()

    def checkpoint(self) -> Any:
        """Called by submitit when a job is to be requeued: the same task once more."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


def bootstrap_of(task: Task) -> Bootstrap:
    return Bootstrap(f"{type(task).__module__}:{type(task).__qualname__}", asdict(task))
