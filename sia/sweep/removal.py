"""Clean: gather what may go, tell how much it is, and delete what may still go then. It loads no torch."""

import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from sia.run_folder import RunFolder, runs_root
from sia.sweep.clean import Policy, files_below, freed_bytes, removable
from sia.sweep.leftovers import leftovers_of_run, leftovers_of_studies


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


def in_gigabytes(size: int) -> str:
    """Bytes as text: `1.25 GB`, in megabytes below a tenth of that."""
    return f"{size / 1e9:.2f} GB" if size >= 1e8 else f"{size / 1e6:.1f} MB"
