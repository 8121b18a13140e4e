"""Clean: gather what may go, tell how much it is, and delete what may still go then. It loads no torch."""

import os
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from sia.cluster.state import look
from sia.errors import UserError
from sia.lock import living_holder
from sia.run_folder import RunFolder, runs_root
from sia.sweep.clean import AT_WORK, Policy, files_below, freed_bytes, removable
from sia.sweep.damage import FAULTS
from sia.sweep.driven import driver_status
from sia.sweep.leftovers import REMOVED, leftovers_of_run, leftovers_of_studies


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
    """A group a run, its whole folder. Raises UserError for a run that is at work, or whose study is driven."""
    groups = []
    for run in runs:
        driver = driver_status(run.study)
        if driver.lives or _is_at_work(run):
            why = f"driven by {driver.who}" if driver.lives else "it is running or pending"
            raise UserError(f"{run.study}/{run.name}: {why}; end it first: python jobs/cancel.py {run.study}")
        groups.append(Group(f"{run.study}/{run.name}", run.path.parent, (run.path,)))
    return groups


def _is_at_work(run: RunFolder) -> bool:
    try:
        return look(run).state in AT_WORK
    except FAULTS:  # a damaged run may be deleted, too, unless a job holds it
        return living_holder(run.lock) is not None


def remove_runs(groups: Iterable[Group]) -> None:
    """Delete whole run folders, each set aside first: a half-deleted run is never taken for one.

    A study whose last run goes leaves nothing of its driver either.
    """
    for path in (path for group in groups for path in group.paths):
        aside = path.with_name(f".{path.name}{REMOVED}")
        os.rename(path, aside)
        shutil.rmtree(aside)
        if next(path.parent.glob("*/config.yaml"), None) is None:
            shutil.rmtree(path.parent)


def in_gigabytes(size: int) -> str:
    """Bytes as text: `1.25 GB`, in megabytes below a tenth of that."""
    return f"{size / 1e9:.2f} GB" if size >= 1e8 else f"{size / 1e6:.1f} MB"
