"""Where one run keeps its files: `runs/<study>/<pair>-<signature>/`.

The folder is the truth about a run; what Ray Tune and a tracker hold can be thrown away and rebuilt from it.
Who writes which file, and when, is the state machine of README.md in this folder. This module loads no torch.
"""

import os
import re
import shlex
import sys
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from sia.atomic import write_text
from sia.config import Experiment, Stage, dump_experiment, load_experiment
from sia.errors import UsageError, UserError
from sia.gate import own_folder
from sia.run.records import StagePlan, Study
from sia.strict_yaml import StrictLoader

REHEARSAL = ".rehearsal"  # ends the name of a study that rehearses another one
STUDY_NAME = re.compile(r"\w[\w.-]*")


class File:
    """A path below its folder's own, as a read-only property."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __get__(self, folder: Any, _: object = None) -> Path:
        path: Path = folder.path
        return path / self.name


@dataclass(frozen=True)
class StageFolder:
    """The files of one stage of a run; stages count from 1."""

    path: Path
    plan = File("plan.json")  # the stage's settings, and the checkpoint it starts from (its lineage)
    job = File("job.json")
    done = File("done.json")
    failed = File("failed.json")
    rendezvous = File("rendezvous")
    best = File("checkpoints/best.pt")
    last = File("checkpoints/last.pt")  # the end of the latest epoch
    previous = File("checkpoints/previous.pt")  # of the one before, in training: what a damaged last.pt falls back on
    partial = File("checkpoints/partial.pt")  # saved by a signal within an epoch; there until that epoch ends

    @property
    def number(self) -> int:
        return int(self.path.name)

    def weights_of_epoch(self, epoch: int) -> Path:
        """Weights alone, kept every `runtime.keep_every_epochs`; epochs count over the whole run, from 1."""
        return self.path / "checkpoints" / f"epoch-{epoch:04d}.pt"


@dataclass(frozen=True)
class RunFolder:
    """All paths of one run."""

    path: Path
    config = File("config.yaml")
    corpus = File("corpus.json")  # the identity of the corpus that the first stage was trained on
    metrics = File("metrics.jsonl")
    steps = File("steps.jsonl")
    lock = File("writer.lock")  # held, with a heartbeat, by the one job that trains the run
    finished = File("finished.json")
    stopped = File("stopped.json")
    rehearsal = File("rehearsal.json")  # of a run that is rehearsed: what came of it
    provenance = File("provenance.jsonl")  # commit and package versions of each job that trained the run
    jobs = File("jobs")  # submitit's pickles and the logs of every rank
    submission = File("jobs/submit.lock")  # held by the process that hands its stage to a cluster
    launch = File("launch.json")  # the cluster and the resources that its latest job was asked for with
    launch_environment = File("launch-environment.json")  # that job's variables, which may be keys: for its owner alone

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def study(self) -> str:
        return self.path.parent.name

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
        return _read_experiment(self.config, status.st_mtime_ns, status.st_size)

    def planned_stages(self) -> list[Stage]:
        """The experiment's chain, then the warm restarts that were added to this run by hand."""
        planned = list(self.experiment().stages)
        while (plan := StagePlan.read(self.stage(len(planned) + 1).plan)) is not None:
            planned.append(plan.stage)
        return planned

    def create(self, experiment: Experiment) -> None:
        """Write the resolved experiment; one that says the same is left as it is.

        Of the same signature, it may be damaged, or differ in what changes nothing that is learnt, which is as asked.
        """
        own_folder(self.jobs)
        try:
            known = self.experiment() == experiment
        except UserError as error:
            known = False
            if self.config.exists():
                print(f"warning: {error}; it is written anew", file=sys.stderr, flush=True)
        if not known:
            write_text(self.config, dump_experiment(experiment))


def check_study_name(study: str) -> str:
    """Raises UsageError for a name that is no plain folder name."""
    if not STUDY_NAME.fullmatch(study):
        raise UsageError(f"study {study!r}: use letters, digits, '.', '-' and '_', beginning with a letter or digit")
    return study


def runs_root() -> Path:
    """The folder of all studies, each a folder of runs: $SIA_RUNS, or `runs` of the working folder."""
    return Path(os.environ.get("SIA_RUNS", "runs")).absolute()


def driver_folder(study: str) -> Path:
    """What belongs to the study's driver rather than to a run."""
    return runs_root() / study / "driver"


def request_of(study: str) -> Path:
    """The record of what jobs/submit.py was asked for."""
    return driver_folder(study) / "request.json"


def again(study: str, run: str = "RUN") -> str:
    """The command that goes on with a study as it was submitted, or, where it was not, with the run."""
    if request_of(study).exists():
        return f"python jobs/submit.py --again {shlex.quote(study)}"
    return f"python jobs/resume.py {run}"


def cure_of_config(config: Path) -> str:
    """What to do about a run's configuration that is damaged."""
    study = config.parent.parent.name
    if request_of(study).exists():
        return f"restore it, or have it written anew: {again(study)}"
    return "restore it, or delete the folder and train the run anew"


def run_of(study: str, experiment: Experiment) -> RunFolder:
    return RunFolder(runs_root() / study / experiment.run_name)


def runs_of(study: str | None = None) -> list[RunFolder]:
    """The runs of a study, or of all."""
    root = runs_root()
    configs = root.glob("*/*/config.yaml") if study is None else (root / study).glob("*/config.yaml")
    return [RunFolder(config.parent) for config in sorted(configs)]


def study_file(study: str) -> Path:
    return runs_root() / study / "study.json"


def study_of(study: str) -> Study:
    """What is on record of it; nothing of one that no grid file made."""
    return Study.read_sound(study_file(study)) or Study()


def report_folder(study: str) -> Path:
    return runs_root().parent / "reports" / study


def studies() -> list[str]:
    """Those that have runs. Raises UserError where the folder of all studies may not be read."""
    root = runs_root()
    if root.is_dir() and not os.access(root, os.R_OK | os.X_OK):
        raise UserError(f"{root}: Permission denied; its owner can let you read it: chmod o+rx")
    return sorted({run.study for run in runs_of()})


def is_rehearsal(study: str) -> bool:
    return study.endswith(REHEARSAL)


def refuse_rehearsal(study: str) -> None:
    """Raises UserError for a study whose runs are not there to be trained."""
    if is_rehearsal(study):
        cure = "python jobs/submit.py --grid FILE --rehearse repeats it"
        raise UserError(f"{study}: a rehearsal, whose runs are not trained any further; {cure}")


def is_study(name: str) -> bool:
    """Whether a folder of that name holds runs, or the job of a driver that will make them."""
    return bool(STUDY_NAME.fullmatch(name)) and ((runs_root() / name / "driver.json").is_file() or bool(runs_of(name)))


def find_run(name: str, study: str | None = None) -> RunFolder:
    """A run by its path, by `study/run`, by its name, or by a part of these that no other run has; `study`: by its name
    or a part of it alone, among that study's runs.

    A whole name goes before a name's beginning, and that before any other part of it. Raises UserError if there is no
    such run, or more than one.
    """
    if not name:
        raise UserError("the run's name is empty; give one that `python jobs/status.py` lists")
    if study is None and (Path(name) / "config.yaml").is_file():
        return RunFolder(Path(name).absolute())
    known = runs_of(study)
    # A rehearsal has the pairs of its study: it is meant where nothing else is.
    found = _called(name, [run for run in known if not is_rehearsal(run.study)]) or _called(name, known)
    if len(found) == 1:
        return found[0]
    if not found:
        cure = "give the path of a run that `python jobs/status.py` lists"
        raise UserError(f"{name}: no such run under {runs_root()}; {cure}")
    listed = ", ".join(f"{run.study}/{run.name}" for run in found[:8]) + (", ..." if len(found) > 8 else "")
    raise UserError(f"{name}: {len(found)} runs have that name under {runs_root()}; give one of {listed}")


def _called(name: str, runs: list[RunFolder]) -> list[RunFolder]:
    named = [(run, f"{run.study}/{run.name}") for run in runs]
    return (
        [run for run, path in named if name in (run.name, path)]
        or [run for run, path in named if run.name.startswith(name) or path.startswith(name)]
        or [run for run, path in named if name in path]
    )


def find_runs(name: str) -> list[RunFolder]:
    """All runs of a study, or the one run that `find_run` finds."""
    return runs_of(name) if is_study(name) else [find_run(name)]


@lru_cache(maxsize=10_000)
def _read_experiment(config: Path, mtime_ns: int, size: int) -> Experiment:
    """The experiment of a file that has not changed since it was last read; a list of runs asks for each many times."""
    try:
        parts = [_section(text) for text in re.split(r"^(?=\w)", config.read_text(), flags=re.MULTILINE) if text]
        if len(values := {key: value for part in parts for key, value in part.items()}) < len(parts):
            raise ValueError("a section that is given twice")
        experiment = Experiment.model_validate(values)
    except (ValueError, AttributeError, yaml.YAMLError):
        return load_experiment(config)  # it names the fault
    if "runtime" not in experiment.model_fields_set:
        # The last section: defaults would stand in for what is gone.
        raise UserError(f"{config}: damaged (it ends too early); {cure_of_config(config)}")
    named = re.search(r"-([0-9a-f]{10})$", config.parent.name)
    if named and named[1] != (signature := experiment.signature):
        raise UserError(
            f"{config}: damaged (its signature is {signature}, not that of its folder); {cure_of_config(config)}"
        )
    return experiment


@lru_cache(maxsize=1000)
def _section(text: str) -> dict[str, Any]:
    """The one key of a configuration's section and its values, which most runs of a study share with others."""
    # libyaml reads it, nine times as fast; the strict loader only builds the values.
    node = yaml.compose(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    section = StrictLoader("").construct_document(node)
    if not isinstance(section, dict) or len(section) != 1:
        raise ValueError("not one section")
    return section
