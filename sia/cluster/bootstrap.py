"""What submitit pickles: it sets a job up to import the snapshot's code, and only then imports it.

This module imports nothing of sia, and is pickled by value: a job that unpickled it by name would import the code of
the folder it starts in.
"""

import sys
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Bootstrap:
    """A task of sia.cluster.tasks, by its kind and fields, carried out by the code in the folder `code`."""

    code: str
    kind: str
    fields: dict[str, Any]

    def __call__(self) -> Any:
        sys.path.insert(0, self.code)
        from sia.cluster.tasks import TASKS

        return TASKS[self.kind](**self.fields)()

    def checkpoint(self) -> Any:
        """Called by submitit when a job is to be requeued: the same task once more."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)
