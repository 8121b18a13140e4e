"""What a job carries out: any dataclass of plain fields with these properties, looked up by its place in the code."""

from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar, Protocol


class Task(Protocol):
    """Called in every rank of its job."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def name(self) -> str:
        """What the cluster calls its job."""

    @property
    def jobs(self) -> Path:
        """The folder of its pickle and logs."""

    @property
    def job_record(self) -> Path: ...

    @property
    def stopped(self) -> Path | None:
        """A marker: where it is there, a job that the cluster has just taken is ended again."""

    def __call__(self) -> None: ...


def kind_of(task: Task) -> str:
    """For example `sia.cluster.stage_job:TrainStage`."""
    return f"{type(task).__module__}:{type(task).__qualname__}"


def task_of(kind: str, fields: dict[str, Any]) -> Any:
    module, _, name = kind.partition(":")
    return getattr(import_module(module), name)(**fields)
