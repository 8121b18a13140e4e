"""One run folder as the report sees it, read from its files alone."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import median

from sia.config import Experiment
from sia.models.sizes import image_parameters, speech_parameters
from sia.run.folder import RunFolder
from sia.run.mended import rows_of
from sia.run.records import Finished, StageDone, StagePlan, TrainedOn
from sia.run.row_files import Row, read_rows
from sia.run.state import ending_of
from sia.run.steps import latest_steps

STEPS_BYTES = 16 << 10  # some fifty rows


@dataclass(frozen=True)
class Restart:
    """The rate restarted after `after_epoch`; `from_epoch` is the checkpoint a stage began at, None within a stage."""

    after_epoch: int
    from_epoch: int | None = None


def restarts(begun: Sequence[StagePlan], epochs_trained: int) -> list[Restart]:
    """All restarts of a run so far, in order: of its stages, and of the cycles of the rate within them.

    One after its last epoch has not happened yet.
    """
    found: list[Restart] = []
    for number, plan in enumerate(begun):
        found += [Restart(plan.first_epoch, plan.start_epoch)] * bool(number)
        found += [Restart(plan.first_epoch + end) for end in plan.stage.schedule.restarts(plan.stage.epochs)]
    return [restart for restart in found if restart.after_epoch < epochs_trained]


@dataclass(frozen=True)
class RunSummary:
    """What one run is and what came of it. Recalls are shares from 0 to 1; `test` is empty until the run finished."""

    name: str
    state: str
    experiment: Experiment
    begun: tuple[StagePlan, ...] = ()
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
    trained_on: TrainedOn | None = field(default=None, repr=False)
    trained_by: str = ""  # ranks, and what each computes with
    pairs_per_second: float | None = None  # lately
    peak_memory_gb: float | None = None

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
        return restarts(self.begun, self.epochs_trained)

    @property
    def stages_begun(self) -> list[Restart]:
        """Those of its restarts at which a stage began from an earlier checkpoint."""
        return [restart for restart in self.restarts if restart.from_epoch is not None]

    @property
    def configuration(self) -> Experiment:
        """What decides the run but its seed: the experiment, with the stages that were added by hand."""
        added = [plan.stage for plan in self.begun[len(self.experiment.stages) :]]
        training = self.experiment.training.model_copy(update={"seed": 0})
        return self.experiment.model_copy(update={"stages": self.experiment.stages + added, "training": training})


def summarise(run: RunFolder) -> RunSummary:
    """Raises UserError for a folder that holds no run, or one that is damaged."""
    plans = (StagePlan.read(run.stage(number).plan) for number in itertools.count(1))
    begun = tuple(iter(lambda: next(plans), None))
    experiment, corpus, jobs = run.experiment(), TrainedOn.read(run.corpus), read_rows(run.provenance)
    finished, ending = Finished.read(run.finished), ending_of(run)
    best = (finished.best_stage, finished.best_epoch) if finished else _best_so_far(run, len(begun))
    rows = [row for row in rows_of(run) if "stage_epoch" in row]
    steps = latest_steps(run, STEPS_BYTES)
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
        trained_on=corpus,
        trained_by=f"{finished.world_size} × {finished.device}" if finished else "",
        pairs_per_second=median(step.pairs_per_second for step in steps) if steps else None,
        peak_memory_gb=max(step.peak_memory_gb for step in steps) if steps else None,
    )


def _best_so_far(run: RunFolder, num_stages: int) -> tuple[int | None, int | None]:
    """The stage and the epoch of the best checkpoint among the stages that are done."""
    numbers = range(1, num_stages + 1)
    done = [(one, number) for number in numbers if (one := StageDone.read(run.stage(number).done)) is not None]
    best = max(done, key=lambda one: one[0].best_value, default=None)
    return (None, None) if best is None else (best[1], best[0].best_epoch)
