"""Where one run keeps its files: `runs/<study>/<pair>-<signature>/`.

The folder is the truth about a run; what Ray Tune and a tracker hold can be thrown away and rebuilt from it.
Who writes which file, and when, is the state machine of README.md in this folder. This module loads no torch.
"""

import os
import re
import sys
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import yaml

from sia.atomic import write_text
from sia.config import Experiment, Stage, dump_experiment, load_experiment
from sia.errors import UsageError, UserError
from sia.gate import own_folder
from sia.run.records import StagePlan
from sia.strict_yaml import StrictLoader


@dataclass(frozen=True)
class StageFolder:
    """The files of one stage of a run; stages count from 1."""

    path: Path

    @property
    def number(self) -> int:
        return int(self.path.name)

    @property
    def plan(self) -> Path:
        """The stage's settings, and the checkpoint it starts from (its lineage)."""
        return self.path / "plan.json"

    @property
    def job(self) -> Path:
        return self.path / "job.json"

    @property
    def done(self) -> Path:
        return self.path / "done.json"

    @property
    def failed(self) -> Path:
        return self.path / "failed.json"

    @property
    def rendezvous(self) -> Path:
        return self.path / "rendezvous"

    @property
    def best(self) -> Path:
        return self.path / "checkpoints" / "best.pt"

    @property
    def last(self) -> Path:
        """The end of the latest epoch."""
        return self.path / "checkpoints" / "last.pt"

    @property
    def previous(self) -> Path:
        """The end of the epoch before the latest, while the stage is trained: what a damaged last.pt falls back on."""
        return self.path / "checkpoints" / "previous.pt"

    @property
    def partial(self) -> Path:
        """Saved by a signal within an epoch; there until that epoch ends."""
        return self.path / "checkpoints" / "partial.pt"

    def weights_of_epoch(self, epoch: int) -> Path:
        """Weights alone, kept every `runtime.keep_every_epochs`; epochs count over the whole run, from 1."""
        return self.path / "checkpoints" / f"epoch-{epoch:04d}.pt"


@dataclass(frozen=True)
class RunFolder:
    """All paths of one run."""

    path: Path

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def study(self) -> str:
        return self.path.parent.name

    @property
    def config(self) -> Path:
        return self.path / "config.yaml"

    @property
    def corpus(self) -> Path:
        """The identity of the corpus that the first stage was trained on."""
        return self.path / "corpus.json"

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.jsonl"

    @property
    def lock(self) -> Path:
        """Held, with a heartbeat, by the one job that trains the run."""
        return self.path / "writer.lock"

    @property
    def finished(self) -> Path:
        return self.path / "finished.json"

    @property
    def stopped(self) -> Path:
        return self.path / "stopped.json"

    @property
    def provenance(self) -> Path:
        """Git commit and package versions of each job that trained the run, a JSON line a job."""
        return self.path / "provenance.jsonl"

    @property
    def jobs(self) -> Path:
        """submitit's pickles and the logs of every rank."""
        return self.path / "jobs"

    @property
    def launch(self) -> Path:
        """The cluster and the resources that its latest job was asked for with."""
        return self.path / "launch.json"

    @property
    def launch_environment(self) -> Path:
        """The variables of the profile of that job, which may be keys: a file for its owner alone."""
        return self.path / "launch-environment.json"

    def stage(self, number: int) -> StageFolder:
        return StageFolder(self.path / "stages" / str(number))

    def experiment(self) -> Experiment:
        """Raises UserError where the folder holds no run."""
        try:
            status = self.config.stat()
        except (FileNotFoundError, NotADirectoryError):
            raise UserError(
                f"{self.path}: no run there (no config.yaml); `python jobs/status.py` lists the runs"
            ) from None
        experiment = _read_experiment(self.config, status.st_mtime_ns, status.st_size)
        named = re.search(r"-([0-9a-f]{10})$", self.name)
        if named and named[1] != experiment.signature:
            raise UserError(
                f"{self.config}: damaged (its signature is {experiment.signature}, not that of its folder); "
                "restore it, or submit the run's grid again, which writes it anew"
            )
        return experiment

    def planned_stages(self) -> list[Stage]:
        """The experiment's chain, then the warm restarts that were added to this run by hand."""
        planned = list(self.experiment().stages)
        while (plan := StagePlan.read(self.stage(len(planned) + 1).plan)) is not None:
            planned.append(plan.stage)
        return planned

    def create(self, experiment: Experiment) -> None:
        """Write the resolved experiment, once; one that is there is left as it is, unless it is damaged."""
        own_folder(self.jobs)
        try:
            known = self.experiment().signature == experiment.signature
        except UserError as error:
            known = False
            if self.config.exists():
                print(f"warning: {error}; it is written anew", file=sys.stderr, flush=True)
        if not known:
            write_text(self.config, dump_experiment(experiment))


def check_study_name(study: str) -> str:
    """Raises UsageError for a name that is no plain folder name."""
    if not re.fullmatch(r"\w[\w.-]*", study):
        raise UsageError(f"study {study!r}: use letters, digits, '.', '-' and '_', beginning with a letter or digit")
    return study


# How a name may mean a run, the surest way first.
_FITS = (
    lambda run, name: name in (run.name, f"{run.study}/{run.name}"),
    lambda run, name: run.name.startswith(name) or f"{run.study}/{run.name}".startswith(name),
    lambda run, name: name in f"{run.study}/{run.name}",
)


@dataclass(frozen=True)
class Runs:
    """The folder of all studies, each a folder of runs."""

    root: Path

    @classmethod
    def here(cls) -> "Runs":
        """$SIA_RUNS, or `runs` of the working folder."""
        return cls(Path(os.environ.get("SIA_RUNS", "runs")).absolute())

    def all(self) -> list[RunFolder]:
        return [RunFolder(config.parent) for config in sorted(self.root.glob("*/*/config.yaml"))]

    def of(self, study: str) -> list[RunFolder]:
        return [RunFolder(config.parent) for config in sorted((self.root / study).glob("*/config.yaml"))]

    def studies(self) -> list[str]:
        """Those that have runs. Raises UserError where the folder of all studies may not be read."""
        if self.root.is_dir() and not os.access(self.root, os.R_OK | os.X_OK):
            raise UserError(f"{self.root}: Permission denied; its owner can let you read it: chmod o+rx")
        return sorted({run.study for run in self.all()})

    def has_study(self, name: str) -> bool:
        """Whether a folder of that name holds runs, or the job of a driver that will make them."""
        folder = self.root / name
        plain = bool(re.fullmatch(r"\w[\w.-]*", name))
        return plain and ((folder / "driver.json").is_file() or next(folder.glob("*/config.yaml"), None) is not None)

    def find(self, name: str) -> RunFolder:
        """A run by its path, by `study/run`, by its name, or by a part of these that no other run has.

        A whole name goes before a name's beginning, and that before any other part of it. Raises UserError if there is
        no such run, or more than one.
        """
        if not name:
            raise UserError("the run's name is empty; give one that `python jobs/status.py` lists")
        if (Path(name) / "config.yaml").is_file():
            return RunFolder(Path(name).absolute())
        runs = self.all()
        found = next((matching for fits in _FITS if (matching := [run for run in runs if fits(run, name)])), [])
        if len(found) == 1:
            return found[0]
        if not found:
            cure = "give the path of a run that `python jobs/status.py` lists"
            raise UserError(f"{name}: no such run under {self.root}; {cure}")
        listed = ", ".join(f"{run.study}/{run.name}" for run in found[:8]) + (", ..." if len(found) > 8 else "")
        raise UserError(f"{name}: {len(found)} runs have that name under {self.root}; give one of {listed}")


def runs_root() -> Path:
    return Runs.here().root


def run_of(study: str, experiment: Experiment) -> RunFolder:
    return RunFolder(runs_root() / study / experiment.run_name)


def runs_of(study: str) -> list[RunFolder]:
    return Runs.here().of(study)


def studies() -> list[str]:
    return Runs.here().studies()


def is_study(name: str) -> bool:
    return Runs.here().has_study(name)


def find_run(name: str) -> RunFolder:
    return Runs.here().find(name)


def find_runs(name: str) -> list[RunFolder]:
    """All runs of a study, or the one run that `find_run` finds."""
    return runs_of(name) if is_study(name) else [find_run(name)]


@lru_cache(maxsize=10_000)
def _read_experiment(config: Path, mtime_ns: int, size: int) -> Experiment:
    """The experiment of a file that has not changed since it was last read; a list of runs asks for each many times."""
    try:
        # libyaml reads it, nine times as fast; the strict loader only builds the values.
        node = yaml.compose(config.read_text(), getattr(yaml, "CSafeLoader", yaml.SafeLoader))
        experiment = Experiment.model_validate(StrictLoader("").construct_document(node))
    except (ValueError, AttributeError, yaml.YAMLError):
        return load_experiment(config)  # it names the fault
    if "runtime" not in experiment.model_fields_set:
        # The last section: defaults would stand in for what is gone.
        raise UserError(f"{config}: damaged (it ends too early); restore it, or delete the folder and submit again")
    return experiment
