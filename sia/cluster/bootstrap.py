"""What submitit pickles: a task by its name, which the job looks up in the code that it runs (sia.gate).

This module imports nothing of sia, and is pickled by value: unpickling loads no module of the code.
"""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Bootstrap:
    """A task, by its place in the code and its fields."""

    kind: str
    fields: dict[str, Any]

    def __call__(self) -> Any:
        from sia.cluster.task import task_of

        return task_of(self.kind, self.fields)()

    def checkpoint(self) -> Any:
        """Called by submitit when a job is to be requeued: the same task once more."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)
