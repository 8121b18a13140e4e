"""A grid file (sweeps/*.yaml) to resolved experiments, one a grid point and seed. It loads no torch."""

import hashlib
import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from sia.config import NOT_IN_SIGNATURE, Experiment, Section, flatten, merge, nest, read_yaml, resolve, validate
from sia.errors import UsageError
from sia.report.differences import in_short
from sia.run.folder import RunFolder, check_study_name, run_of, study_file
from sia.run.records import Study

Overrides = dict[str, Any]
LONGEST_NAME = 60


class Where(Section):
    """Overrides, and a profile, for the points that match: the paper gives each pair its own schedule."""

    match: Overrides
    set: Overrides = {}
    profile: str | None = Field(None, description="resources of these points, such as those with the large cards")


class GridFile(Section):
    """The study's question, its fixed values, the values that vary, and the chain of stages.

    `miniature` is the same study at the size of one machine: its keys replace those of the file, `experiment` key by
    key.
    """

    study: Annotated[str, Field(pattern=r"^\w[\w.-]*$")] | None = None
    question: str = ""
    experiment: Overrides = {}
    grid: dict[str, Annotated[list[Any], Field(min_length=1)]] = {}
    exclude: list[Overrides] = []
    where: list[Where] = []
    stages: list[Overrides] | None = None
    seeds: Annotated[list[int], Field(min_length=1)] | None = None
    profile: str | None = None
    miniature: dict[str, Any] | None = None


@dataclass(frozen=True)
class GridPoint:
    """One run of a study, and the profile that the grid chooses for it."""

    study: str
    experiment: Experiment
    profile: Path | None = None

    @cached_property
    def run(self) -> RunFolder:
        return run_of(self.study, self.experiment)

    def create(self) -> RunFolder:
        """The run's folder, made where it is not there yet."""
        self.run.create(self.experiment)
        return self.run


@dataclass(frozen=True)
class Grid:
    path: Path
    study: str
    points: list[GridPoint]
    has_miniature: bool
    record: Study = field(default_factory=Study)

    @property
    def told(self) -> list[str]:
        """The question, and why the study has another name than its file, in a line each."""
        changes = f"--set makes other runs than {self.record.grid} does: their study is {self.study}"
        return [self.record.question] * bool(self.record.question) + [changes] * bool(self.record.changes)

    def point(self, number: int) -> GridPoint:
        """Grid point `number`, from 1. Raises UsageError where the grid has no such point."""
        if not 1 <= number <= len(self.points):
            last = len(self.points)
            raise UsageError(f"--point {number}: the grid has points 1 to {last}; without --point it lists them")
        return self.points[number - 1]

    def create(self) -> None:
        """Make the run folders that are not there yet, and tell beside them what the study asks."""
        self.record.write(study_file(self.study))
        for point in self.points:
            point.create()


def load_grid(path: Path, miniature: bool = False, overrides: Mapping[str, Any] | None = None, study: str = "") -> Grid:
    """The points of a grid file, `overrides` laid over each. study: its name, where it has one already.

    Raises UsageError that names the file and the key: an unknown key, a wrong value, a filter that matches nothing,
    a profile that is not there.
    """
    file = _read(path, miniature)
    named = study or file.study or _study_of(path, miniature)
    chosen = _points(file, str(path))
    every = [(values, seed) for values in chosen for seed in file.seeds or (None,)]
    resolved = [_resolve(file, values, seed, overrides or {}, str(path)) for values, seed in every]
    changes = _changes(resolved, overrides or {})
    study = study or (_own_name(named, changes) if changes else named)
    experiments: dict[str, GridPoint] = {}
    for (values, _), (_, experiment) in zip(every, resolved, strict=True):
        point = GridPoint(study, experiment, _profile(file, values, path))
        if experiments.setdefault(experiment.signature, point) is not point:
            cause = "--set gives a key of `grid:` or `seeds:` one value; leave it out" if overrides else "drop one"
            raise UsageError(f"{path}: two points of the grid are the same run ({experiment.run_name}); {cause}")
    record = Study(question=" ".join(file.question.split()), grid=str(path), changes=changes)
    return Grid(path, study, list(experiments.values()), file.miniature is not None, record)


def _changes(resolved: Sequence[tuple[Experiment, Experiment]], overrides: Mapping[str, Any]) -> list[str]:
    """What overrides change of what is learnt, in one order and spelling; resolved: each run without and with them."""
    if all(without.signature == ours.signature for without, ours in resolved):
        return []
    unsigned = tuple(f"{key}." for key in NOT_IN_SIGNATURE)
    given = {key: value for key, value in flatten(nest(overrides)).items() if not f"{key}.".startswith(unsigned)}
    changed: Overrides = {}
    for both in resolved:
        before, after = (flatten(one.model_dump(mode="json")) for one in both)
        changed |= {key: after.get(key, given[key]) for key in given if after.get(key, given[key]) != before.get(key)}
    return in_short([dict(sorted(changed.items()))], ())[0]


def _own_name(study: str, changes: Sequence[str]) -> str:
    """A study's name for runs that are not the grid file's: their reports, tables and drivers are their own."""
    told = "-".join([study, *changes]).replace("=", "-")
    plain = re.sub(r"[^\w.]+", "-", told).strip("-")[:LONGEST_NAME]
    return plain if plain == told else f"{plain}-{hashlib.sha256(told.encode()).hexdigest()[:6]}"


def _study_of(path: Path, miniature: bool) -> str:
    try:
        return check_study_name(path.stem + ("-miniature" if miniature else ""))
    except UsageError:
        key = "'study:' under 'miniature:'" if miniature else "'study:'"
        cure = f"give it one with {key} (letters, digits, '.', '_', '-')"
        raise UsageError(f"{path}: its name makes no study name; {cure}") from None


def profile_path(grid: Path, named: str, key: str = "profile") -> Path:
    """Where the profile lies that the grid file `grid` names under `key`: an absolute path stays as it is.

    Any other is looked for in the folder above the grid's, in the grid's own, then in the working folder.
    Raises UsageError that names the file, the key and these folders.
    """
    if Path(named).is_absolute():
        return Path(named)
    folder = grid.absolute().parent
    places = list(dict.fromkeys([folder.parent, folder, Path.cwd()]))
    found = next((place / named for place in places if (place / named).is_file()), None)
    if found is None:
        looked_in = ", ".join(str(place) for place in places)
        raise UsageError(f"{grid}: {key}: no {named!r} in {looked_in}; correct it, or give the absolute path")
    return found


def _profile(file: GridFile, values: Overrides, path: Path) -> Path | None:
    """That of the last matching `where:` that names one, else the file's own."""
    named = {"profile": file.profile}
    for number, where in enumerate(file.where, 1):
        if _matches(values, where.match):
            named[f"where.{number}.profile"] = where.profile
    chosen = [(name, key) for key, name in named.items() if name]
    return profile_path(path, *chosen[-1]) if chosen else None


def _read(path: Path, miniature: bool) -> GridFile:
    raw = read_yaml(path)
    file: GridFile = validate(GridFile, raw, str(path))
    if not miniature:
        return file
    if file.miniature is None:
        raise UsageError(f"{path}: no `miniature:` section; add one, or leave --miniature out")
    small = {**raw, "study": None, **file.miniature, "miniature": None}
    small["experiment"] = merge(nest(file.experiment), nest(file.miniature.get("experiment", {})))
    return validate(GridFile, small, f"{path}, miniature")


def _points(file: GridFile, source: str) -> list[Overrides]:
    every = [dict(zip(file.grid, values, strict=True)) for values in itertools.product(*file.grid.values())]
    for filters in (*file.exclude, *(where.match for where in file.where)):
        _check_filter(filters, file.grid, every, source)
    kept = [values for values in every if not any(_matches(values, excluded) for excluded in file.exclude)]
    if not kept:
        raise UsageError(f"{source}: the grid has no point left; `exclude:` drops all {len(every)} of them")
    return kept


def _check_filter(filters: Overrides, grid: Mapping[str, Any], points: list[Overrides], source: str) -> None:
    for key in filters:
        if key not in grid:
            raise UsageError(
                f"{source}: {key!r} is used to choose points, but `grid:` has {', '.join(grid) or 'no key'}"
            )
    if not any(_matches(values, filters) for values in points):
        raise UsageError(f"{source}: {filters} matches no point of the grid; correct it or remove it")


def _matches(values: Overrides, filters: Overrides) -> bool:
    return all(values[key] == wanted for key, wanted in filters.items())


def _resolve(
    file: GridFile, values: Overrides, seed: int | None, overrides: Mapping[str, Any], source: str
) -> tuple[Experiment, Experiment]:
    """A point's experiment without the overrides, and with them."""
    layers: list[Mapping[str, Any]] = [file.experiment]
    if file.stages is not None:
        layers.append({"stages": file.stages})
    layers.append(values)
    layers += [where.set for where in file.where if _matches(values, where.match)]
    if seed is not None:
        layers.append({"training.seed": seed})
    without = resolve(*layers, source=source)
    return without, resolve(*layers, overrides, source="--set") if overrides else without
