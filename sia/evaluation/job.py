"""Runs evaluated by a job array on Slurm: the task of one of them, and all of them."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from sia.atomic import read_json, write_json
from sia.cluster.array import Element, carried_out
from sia.cluster.profile import Profile
from sia.cluster.task import JobFiles
from sia.errors import UserError
from sia.run.folder import RunFolder


@dataclass(frozen=True)
class EvaluateRun(Element):
    """The task: `sia.evaluation.evaluate.evaluate_run` of the run in `path` with these options.

    Its result, or error, is a file of `evaluations/` in the run's folder, named by a hash of the options.
    """

    most_gpus: ClassVar[int] = 1

    path: str
    options: dict[str, Any]

    @property
    def files(self) -> JobFiles:
        record = self.result.with_name(f"{self.result.stem}-job.json")
        return JobFiles(f"evaluate {Path(self.path).name}", self.result.parent, record)

    @property
    def result(self) -> Path:
        digest = hashlib.sha256(json.dumps(self.options, sort_keys=True).encode()).hexdigest()[:10]
        return Path(self.path) / "evaluations" / f"{digest}.json"

    @property
    def is_done(self) -> bool:
        return self.result.exists()

    def __call__(self) -> None:
        from sia.evaluation.evaluate import evaluate_run

        corpus = Path(self.options["corpus"]) if self.options.get("corpus") else None
        try:
            write_json(self.result, evaluate_run(RunFolder(Path(self.path)), **{**self.options, "corpus": corpus}))
        except UserError as error:
            write_json(self.result, {"error": str(error)})


def evaluate_on_slurm(runs: Sequence[RunFolder], profile: Profile, options: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The result of each run's evaluation as it is there, as `evaluate_run` returns it; `options` are those of it.

    Raises UserError with the error of the first one that failed, or that ended without a result.
    """
    tasks = [EvaluateRun(str(run.path), options) for run in runs]
    for task in tasks:
        if not task.is_queued:
            task.result.unlink(missing_ok=True)  # of an evaluation before
    for task in carried_out(tasks, profile):
        result = read_json(task.result) or {}
        if "error" in result:
            raise UserError(f"{Path(task.path).name}: {result['error']}")
        yield result
