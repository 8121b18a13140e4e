"""The typed files of a run folder: each is read as a whole record, or its damage is named. It loads no torch."""

from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from sia.atomic import CURE, read_json, write_json
from sia.config import Stage
from sia.errors import UserError

Own = TypeVar("Own", bound="Record")


class Record(BaseModel):
    """A sealed JSON file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @classmethod
    def read(cls: type[Own], path: Path) -> Own | None:
        """The record, or None where there is no file. Raises UserError that names a file which is damaged."""
        values = read_json(path)
        if values is None:
            return None
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            fault = error.errors()[0]
            key = ".".join(map(str, fault["loc"]))
            raise UserError(f"{path}: not a {cls.__name__} of this program ({key}: {fault['msg']}); {CURE}") from None

    def write(self, path: Path) -> None:
        write_json(path, self.model_dump(mode="json"))


class StagePlan(Record):
    """plan.json: a stage's settings and where it starts."""

    stage: Stage
    first_epoch: int  # epochs of the run before this stage
    start_checkpoint: str | None = None  # relative to the run folder; None starts from random weights
    start_epoch: int | None = None
    start_lr: float


class StageDone(Record):
    """done.json: what came of a stage, and its rows of metrics.jsonl once more."""

    best_epoch: int  # of the whole run, from 1
    best_value: float
    seconds: float
    epochs: int
    rows: list[dict[str, Any]]


class Finished(Record):
    """finished.json: the best checkpoint of all stages, measured on the test split."""

    best_epoch: int
    best_stage: int
    best_value: float
    seconds: float
    test: dict[str, float]
    num_test_captions: int
    num_test_images: int
    world_size: int
    batch_norm: str
    device: str
    num_stages: int
    time: float

    @property
    def row(self) -> dict[str, Any]:
        """The last row of metrics.jsonl."""
        measures = {f"test/{name}": value for name, value in self.test.items()}
        return {"stage": self.num_stages, "epoch": self.best_epoch, "time": self.time, **measures}
