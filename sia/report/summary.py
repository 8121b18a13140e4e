"""One run folder as the report sees it, read from its files alone."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from sia.config import Experiment, Stage, flatten
from sia.models.parameter_counts import image_parameters, speech_parameters
from sia.report.restarts import Begun, Restart, restarts
from sia.run.folder import RunFolder
from sia.run.metrics import Row, read_rows
from sia.run.records import Finished, StageDone, StagePlan, TrainedOn
from sia.run.rows import rows_of
from sia.run.state import ending_of

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
    finished, ending = Finished.read(run.finished), ending_of(run)
    best = (finished.best_stage, finished.best_epoch) if finished else _best_so_far(run, len(begun))
    corpus = TrainedOn.read(run.corpus)
    experiment = run.experiment()
    jobs = read_rows(run.provenance)
    rows = [row for row in rows_of(run) if "stage_epoch" in row]
    return RunSummary(
        name=run.name,
        state=ending.state.value if ending else "unfinished",
        experiment=experiment,
        begun=begun,
        corpus=corpus.name if corpus else experiment.data.corpus,
        corpus_identity=corpus.identity if corpus else "",
        epoch_rows=tuple(rows),
        best_epoch=best[1],
        best_stage=best[0],
        seconds=finished.seconds if finished else sum(row.get("train/seconds", 0.0) for row in rows),
        test=finished.test if finished else {},
        num_test_captions=finished.num_test_captions if finished else None,
        num_test_images=finished.num_test_images if finished else None,
        commit=jobs[-1].get("git_commit") or "" if jobs else "",
    )


def _begun_stages(run: RunFolder) -> Iterator[Begun]:
    number = 1
    while (plan := StagePlan.read(run.stage(number).plan)) is not None:
        yield Begun(plan.stage, plan.first_epoch, plan.start_epoch)
        number += 1


def _best_so_far(run: RunFolder, num_stages: int) -> tuple[int | None, int | None]:
    """The stage and the epoch of the best checkpoint among the stages that are done."""
    numbers = range(1, num_stages + 1)
    done = [(one, number) for number in numbers if (one := StageDone.read(run.stage(number).done)) is not None]
    best = max(done, key=lambda one: one[0].best_value, default=None)
    return (None, None) if best is None else (best[1], best[0].best_epoch)
