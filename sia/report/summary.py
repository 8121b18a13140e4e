"""One run folder as the report sees it, read from its files alone."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from sia.atomic import read_json
from sia.config import Experiment, Stage
from sia.flatten import flatten
from sia.models.parameter_counts import image_parameters, speech_parameters
from sia.report.restarts import Begun, Restart, restarts
from sia.run.folder import RunFolder
from sia.run.metrics import Row, read_rows
from sia.run.records import StagePlan
from sia.run.rows import rows_of

NOT_SETTINGS = ("training.seed", "runtime.", "data.folder")


@dataclass(frozen=True)
class RunSummary:
    """What one run is and what came of it. Recalls are shares from 0 to 1; `test` is empty until the run finished."""

    name: str
    state: str
    experiment: Experiment
    begun: tuple[Begun, ...] = ()
    corpus: str = ""
    corpus_identity: str = ""
    epoch_rows: tuple[Row, ...] = field(default=(), repr=False)
    best_epoch: int | None = None
    best_stage: int | None = None
    seconds: float = 0.0
    test: dict[str, float] = field(default_factory=dict)
    num_test_captions: int | None = None
    num_test_images: int | None = None
    commit: str = ""

    @property
    def pair(self) -> str:
        return self.experiment.model.pair_name

    @property
    def speech_parameters(self) -> int:
        return speech_parameters(self.experiment.model)

    @property
    def image_parameters(self) -> int:
        return image_parameters(self.experiment.model)

    @property
    def seed(self) -> int:
        return self.experiment.training.seed

    @property
    def selected_on(self) -> str:
        """The split that chose the best epoch."""
        return self.experiment.training.select_on

    @property
    def finished(self) -> bool:
        return self.state == "finished"

    @property
    def epochs_trained(self) -> int:
        return self.epoch_rows[-1]["epoch"] if self.epoch_rows else 0

    @property
    def restarts(self) -> list[Restart]:
        return restarts(list(self.begun), self.epochs_trained)

    @property
    def stages(self) -> list[Stage]:
        """The chain: what the experiment plans, then what was added by hand."""
        return [*self.experiment.stages, *(one.stage for one in self.begun[len(self.experiment.stages) :])]

    @property
    def settings(self) -> dict[str, Any]:
        """Every value that decides the run but its seed, by dotted key; `stages` tells the chain in short."""
        stages = [stage.model_dump(mode="json") for stage in self.stages]
        values = flatten({**self.experiment.model_dump(mode="json"), "stages": stages})
        kept = {key: value for key, value in values.items() if not key.startswith(NOT_SETTINGS)}
        return {**kept, "stages": " then ".join(map(_in_short, self.stages))}


def _in_short(stage: Stage) -> str:
    """'30 calr', or '30 calr ×0.5' at half the rate."""
    return f"{stage.epochs} {stage.schedule.name}" + ("" if stage.lr_scale == 1 else f" ×{stage.lr_scale:g}")


def summarise(run: RunFolder) -> RunSummary:
    """Raises UserError for a folder that holds no run, or a broken metrics.jsonl."""
    begun = tuple(_begun_stages(run))
    finished = read_json(run.finished) or {}
    best = finished or _best_so_far(run, len(begun))
    corpus = read_json(run.corpus) or {}
    experiment = run.experiment()
    jobs = read_rows(run.provenance)
    rows = [row for row in rows_of(run) if "stage_epoch" in row]
    return RunSummary(
        name=run.name,
        state=_state(run),
        experiment=experiment,
        begun=begun,
        corpus=corpus.get("name", experiment.data.corpus),
        corpus_identity=str(corpus.get("identity", "")),
        epoch_rows=tuple(rows),
        best_epoch=best.get("best_epoch"),
        best_stage=best.get("best_stage"),
        seconds=finished.get("seconds") or sum(row.get("train/seconds", 0.0) for row in rows),
        test=finished.get("test", {}),
        num_test_captions=finished.get("num_test_captions"),
        num_test_images=finished.get("num_test_images"),
        commit=jobs[-1].get("git_commit") or "" if jobs else "",
    )


def _state(run: RunFolder) -> str:
    if run.finished.is_file():
        return "finished"
    if any(run.path.glob("stages/*/failed.json")):
        return "failed"
    return "stopped" if run.stopped.is_file() else "unfinished"


def _begun_stages(run: RunFolder) -> Iterator[Begun]:
    number = 1
    while (plan := StagePlan.read(run.stage(number).plan)) is not None:
        yield Begun(plan.stage, plan.first_epoch, plan.start_epoch)
        number += 1


def _best_so_far(run: RunFolder, num_stages: int) -> dict[str, Any]:
    done = [{**(read_json(run.stage(number).done) or {}), "best_stage": number} for number in range(1, num_stages + 1)]
    return max((one for one in done if "best_value" in one), key=lambda one: one["best_value"], default={})
