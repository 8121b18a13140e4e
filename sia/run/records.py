"""The typed files of a run folder: each is read as a whole record, or its damage is named. It loads no torch."""

import time
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from sia.atomic import CURE, read_json, write_json
from sia.config import Stage
from sia.errors import UserError
from sia.section import cure_of

OTHER = "use the version that wrote it, or "
Own = TypeVar("Own", bound="Record")


class OfAnotherVersion(UserError):
    """A record that is as it was written, but not by this version of the program."""


class Record(BaseModel):
    """A sealed JSON file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @classmethod
    def read(cls: type[Own], path: Path) -> Own | None:
        """The record, or None where there is no file. Raises UserError that names a file which is damaged, and
        OfAnotherVersion, one of these, for one that is whole.
        """
        values = read_json(path)
        if values is None:
            return None
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            fault = error.errors()[0]
            why = ": ".join([*(str(key) for key in fault["loc"]), cure_of(fault)])
            raise OfAnotherVersion(f"{path}: not a {cls.__name__} of this program ({why}); {OTHER}{CURE}") from None

    @classmethod
    def read_sound(cls: type[Own], path: Path) -> Own | None:
        """The record, or None where it is not there, or damaged."""
        try:
            return cls.read(path)
        except UserError:
            return None

    def write(self, path: Path) -> None:
        write_json(path, self.model_dump(mode="json"))


class Submission(Record):
    """job-begun.json: what is known of a job before the cluster is asked to take it."""

    cluster: str
    name: str = ""  # what the cluster calls it
    host: str = ""
    folder: str = ""  # where its logs lie
    code: str = ""
    user: int | None = None
    profile: dict[str, Any] = {}
    token: str = ""
    element: int | None = None  # its place in an array


def begun_of(job: Path) -> Path:
    """What is known of a submission before the cluster is asked: by it a job is found whose submission was killed."""
    return job.with_name(f"{job.stem}-begun.json")


class Job(Submission):
    """job.json, or driver.json: a job that a cluster took; one of `debug` is the terminal's own process."""

    job_id: str
    time: float | None = None
    shared: bool = False  # a pack's, which other runs train in, too: nobody ends it for the sake of one
    left: float | None = None  # when the run lost its place in the pack

    @model_validator(mode="after")
    def _can_be_asked_about(self) -> "Job":
        if self.cluster == "local" and not (self.host and self.folder and self.job_id.isdecimal()):
            raise ValueError("a local job has a host, a folder and, as job_id, the number of a process")
        return self


def hand_on(job: Path, target: Path, job_id: str, **more: Any) -> None:
    """Write down the job of the record `job` as that of another stage, too; `more`: what differs."""
    # The submission's is there until the record is this job's.
    if (known := Submission.read(begun_of(job)) or Job.read(job)) is not None:
        told = known.model_dump(exclude={"job_id", "time", "left"}) | more
        target.parent.mkdir(parents=True, exist_ok=True)
        Job(**told, job_id=job_id, time=time.time()).write(target)


class Request(Record):
    """driver/request.json: what jobs/submit.py was asked for last; driver/grid.yaml beside it is its grid as it was."""

    grid: str
    miniature: bool = False
    overrides: list[str] = []  # each as --set has it
    cluster: str = "auto"
    profile: str | None = None
    scheduler: Literal["tune", "asha", "none"] = "tune"
    max_concurrent: int | None = None
    detach: bool = False


class Launch(Record):
    """launch.json: the cluster and the resources that the latest job was asked for with, and why it was not taken."""

    cluster: str
    profile: dict[str, Any]
    refused: str = ""


class Failed(Record):
    """failed.json: the error that ended a stage's job."""

    error: str
    rank: int = 0
    job_id: str = ""
    time: float | None = None


class Stopped(Record):
    """stopped.json: who gave the run up; asha tells at which epoch, and by which value."""

    by: str
    time: float | None = None
    epoch: int | None = None
    value: float | None = None


class Study(Record):
    """study.json, in the study's folder: what it asks, and which grid file asks it."""

    question: str = ""
    grid: str = ""
    changes: list[str] = []  # what `--set` changed of the file's runs


class StagePlan(Record):
    """plan.json: a stage's settings and where it starts."""

    stage: Stage
    first_epoch: int  # epochs of the run before this stage
    start_checkpoint: str | None = None  # relative to the run folder; None starts from random weights
    start_epoch: int | None = None
    start_lr: float


class TrainedOn(Record):
    """corpus.json: the description of the corpus that the first stage was trained on, and where it lies."""

    model_config = ConfigDict(extra="allow", frozen=True)

    name: str
    identity: str
    folder: str = ""
    features: dict[str, Any] | None = None

    @property
    def description(self) -> dict[str, Any]:
        return self.model_dump(exclude_unset=True)


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
