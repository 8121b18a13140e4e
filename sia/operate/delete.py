"""Clean: gather what may go, tell how much it is, and delete what may still go then. It loads no torch."""

import os
import re
import shutil
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from uuid import uuid4

from sia.errors import UserError
from sia.operate.damage import FAULTS
from sia.operate.leftovers import LOCK_PARTS, REMOVED, leftovers_of_run, leftovers_of_studies
from sia.operate.retention import AT_WORK, Policy, files_below, freed_bytes, removable
from sia.run.driver import driver_status
from sia.run.folder import RunFolder, is_study, runs_of, runs_root
from sia.run.lock import living_holder
from sia.run.state import look

RUN_NAME = re.compile(r"[A-Z]+G\d+A\d+-[0-9a-f]{10}")  # as Experiment.run_name makes it
OF_DRIVER = ("driver.json", "driver.lock", "driver", ".*.tmp", LOCK_PARTS, f".*{REMOVED}")  # in a study's folder


@dataclass(frozen=True)
class Group:
    """Files and folders of one run that may go, or those that belong to none."""

    name: str
    base: Path
    paths: tuple[Path, ...]
    run: RunFolder | None = None

    @cached_property
    def files(self) -> list[Path]:
        return [file for path in self.paths for file in files_below(path)]

    @cached_property
    def freed(self) -> int:
        """Bytes."""
        return freed_bytes(self.files)

    @property
    def relative(self) -> list[Path]:
        return [path.relative_to(self.base) for path in self.paths]

    @property
    def line(self) -> str:
        return f"{self.name}: {len(self.files)} files, {in_gigabytes(self.freed)}"


def what_may_go(runs: Iterable[RunFolder], policy: Policy, everything: bool) -> list[Group]:
    """A group a run that has something to give up; `everything`: another for old copies of the code and the like."""
    groups = [_of_run(run, policy) for run in runs]
    if everything:
        root = runs_root()
        groups.append(Group(str(root), root, tuple(leftovers_of_studies())))
    return [group for group in groups if group.paths]


def _of_run(run: RunFolder, policy: Policy) -> Group:
    paths = (*removable(run, policy), *leftovers_of_run(run))
    return Group(f"{run.study}/{run.name}", run.path, paths, run)


def remove(groups: Iterable[Group], policy: Policy) -> tuple[int, int]:
    """Delete them; how many files, and how many bytes that freed.

    Each run is looked at once more first: one that was submitted since keeps what it has.
    """
    count = freed = 0
    for group in groups:
        now = group if group.run is None else _of_run(group.run, policy)
        left = Group(group.name, group.base, tuple(path for path in now.paths if path in group.paths))
        count, freed = count + len(left.files), freed + left.freed
        for path in left.paths:
            shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)
    return count, freed


def whole_runs(runs: Iterable[RunFolder]) -> list[Group]:
    """A group a run, every file of its folder as it is now, and one for what a study's driver left where no run stays.

    Raises UserError for what is no run of this runs folder, for a run that is at work, or whose study is driven.
    """
    chosen = list(dict.fromkeys(_own(run) for run in runs))
    for run in chosen:
        _refuse_at_work(run)
    groups = [Group(f"{run.study}/{run.name}", run.path.parent, tuple(files_below(run.path)), run) for run in chosen]
    emptied = (study for study in dict.fromkeys(run.study for run in chosen) if set(runs_of(study)) <= set(chosen))
    return groups + [group for study in emptied if (group := _of_driver(study)).paths]


def _own(run: RunFolder) -> RunFolder:
    """The run as a folder of one of the studies. Raises UserError for anything else in which a config.yaml lies."""
    root, given = runs_root(), Path(os.path.normpath(run.path))
    own = RunFolder(root / given.parent.name / given.name)
    is_named = RUN_NAME.fullmatch(own.name) and is_study(own.study)
    if not (is_named and given.exists() and own.path.exists() and own.path.samefile(given)):
        raise UserError(f"{run.path}: no run of {root} ($SIA_RUNS); who put it there may delete it, --remove does not")
    for link in (path for path in (own.path.parent, own.path) if path.is_symlink()):
        raise UserError(f"{link}: a symbolic link, behind which nothing is deleted; remove the link, or what it names")
    return own


def _of_driver(study: str) -> Group:
    folder = runs_root() / study
    places = (place for pattern in OF_DRIVER for place in sorted(folder.glob(pattern)))
    return Group(
        f"{study}: what its driver left", folder, tuple(file for place in places for file in files_below(place))
    )


def _refuse_at_work(run: RunFolder) -> None:
    driver = driver_status(run.study)
    if driver.lives or _is_at_work(run):
        why = f"driven by {driver.who}" if driver.lives else "it is running or pending"
        raise UserError(f"{run.study}/{run.name}: {why}; end it first: python jobs/cancel.py {run.study}")


def _is_at_work(run: RunFolder) -> bool:
    try:
        return look(run).state in AT_WORK
    except FAULTS:  # a damaged run may be deleted, too, unless a job holds it
        return living_holder(run.lock) is not None


def remove_runs(groups: Sequence[Group]) -> list[Path]:
    """Delete the files of the groups and the folders that this empties; which folders stay for what else is in them.

    Raises UserError where anybody has begun to work on a run meanwhile.
    """
    for group in groups:
        if group.run is None:
            _delete(group.paths, group.base)
        else:
            _refuse_at_work(group.run)
            _delete_run(group.run.path, group.paths)
    studies = dict.fromkeys(group.base for group in groups)
    for study in studies:
        with suppress(OSError):
            study.rmdir()
    return [folder for folder in (*(group.run.path for group in groups if group.run), *studies) if folder.exists()]


def _delete_run(folder: Path, files: Sequence[Path]) -> None:
    """Set aside first: a half-deleted run is never taken for one. What has come since it was listed is put back."""
    aside = folder.with_name(f".{folder.name}.{uuid4().hex[:8]}{REMOVED}")
    os.rename(folder, aside)
    _delete([aside / file.relative_to(folder) for file in files], aside)
    _remove_empty(aside)
    if aside.exists():
        os.rename(aside, folder)


def _delete(files: Sequence[Path], base: Path) -> None:
    for file in files:
        file.unlink(missing_ok=True)
    for place in {base / file.relative_to(base).parts[0] for file in files}:
        _remove_empty(place)


def _remove_empty(folder: Path) -> None:
    for place, _, _ in os.walk(folder, topdown=False):
        with suppress(OSError):
            os.rmdir(place)


def in_gigabytes(size: int) -> str:
    """Bytes as text: `1.25 GB`, in megabytes below a tenth of that."""
    return f"{size / 1e9:.2f} GB" if size >= 1e8 else f"{size / 1e6:.1f} MB"
