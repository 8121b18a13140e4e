"""The job of one evaluation: a run's checkpoint on a split."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from sia.atomic import write_json
from sia.cluster.array import Element
from sia.run.folder import RunFolder


@dataclass(frozen=True)
class EvaluateRun(Element):
    """The task: `sia.evaluation.of_run.evaluate_run` of the run in `path` with these options.

    Its result, or error, is a file of `evaluations/` in the run's folder, named by a hash of the options.
    """

    most_gpus: ClassVar[int] = 1

    path: str
    options: dict[str, Any]

    @property
    def name(self) -> str:
        return f"evaluate {Path(self.path).name}"

    @property
    def jobs(self) -> Path:
        return Path(self.path) / "evaluations"

    @property
    def job_record(self) -> Path:
        return self.jobs / f"{self._digest}-job.json"

    @property
    def result(self) -> Path:
        return self.jobs / f"{self._digest}.json"

    @property
    def is_done(self) -> bool:
        return self.result.exists()

    @property
    def _digest(self) -> str:
        return hashlib.sha256(json.dumps(self.options, sort_keys=True).encode()).hexdigest()[:10]

    def __call__(self) -> None:
        from sia.errors import UserError
        from sia.evaluation.of_run import evaluate_run

        options = dict(self.options)
        corpus = Path(options.pop("corpus")) if options.get("corpus") else options.pop("corpus", None)
        try:
            write_json(self.result, evaluate_run(RunFolder(Path(self.path)), **options, corpus=corpus))
        except UserError as error:
            write_json(self.result, {"error": str(error)})
