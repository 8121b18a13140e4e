"""What submitit pickles: a task by its name, which the job looks up in the code that it runs (sia.gate).

This module imports nothing of sia, and is pickled by value: unpickling loads no module of the code.
"""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Bootstrap:
    """A task of sia.cluster.tasks, by its kind and fields."""

    kind: str
    fields: dict[str, Any]

    def __call__(self) -> Any:
        from sia.cluster.tasks import TASKS

        return TASKS[self.kind](**self.fields)()

    def checkpoint(self) -> Any:
        """Called by submitit when a job is to be requeued: the same task once more."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)
