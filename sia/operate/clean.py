"""What may go, gathered, counted and deleted: checkpoints, what killed jobs left behind, whole runs. No torch."""

import os
import re
import shutil
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from uuid import uuid4

from sia.clock import age_seconds
from sia.errors import UserError
from sia.operate.damage import FAULTS, readable
from sia.operate.retention import AT_WORK, Policy, removable
from sia.operate.status import all_studies
from sia.run.driver import driver_of, driver_status
from sia.run.folder import RunFolder, is_study, runs_of, runs_root, studies
from sia.run.lock import living_holder
from sia.run.records import Job
from sia.run.row_files import read_rows
from sia.run.state import look

OLD_SECONDS = 24 * 3600.0
RUN_NAME = re.compile(r"[A-Z]+G\d+A\d+-[0-9a-f]{10}")  # as Experiment.run_name makes it
LOCK_PARTS = ".*.lock.*"  # of a process that was killed while it took the lock
REMOVED = ".removed"  # ends the name of a run that is being deleted
TORN = (".*.tmp", "*/.*.tmp", "*/driver/.*.tmp", f"*/{LOCK_PARTS}", f"*/driver/{LOCK_PARTS}", f"*/.*{REMOVED}")
# In a study's folder, besides its runs.
OF_DRIVER = ("study.json", "driver.json", "driver.lock", "driver", "packs", ".*.tmp", LOCK_PARTS, f".*{REMOVED}")


@dataclass(frozen=True)
class Group:
    """Files and folders of one run that may go, or those that belong to none."""

    name: str
    base: Path
    paths: tuple[Path, ...]
    run: RunFolder | None = None

    @cached_property
    def files(self) -> list[Path]:
        return [file for path in self.paths for file in _files_below(path)]

    @cached_property
    def freed(self) -> int:
        """Bytes."""
        return freed_bytes(self.files)

    @property
    def line(self) -> str:
        return f"{self.name}: {len(self.files)} files, {in_gigabytes(self.freed)}"


def freed_bytes(paths: Iterable[Path]) -> int:
    """The room that removing all of these gives back: a file with another name elsewhere gives back none."""
    found = [path.lstat() for path in paths]
    names = Counter((one.st_dev, one.st_ino) for one in found)
    sizes = {(one.st_dev, one.st_ino): one.st_size for one in found if names[one.st_dev, one.st_ino] >= one.st_nlink}
    return sum(sizes.values())


def in_gigabytes(size: int) -> str:
    """Bytes as text: `1.25 GB`, in megabytes below a tenth of that."""
    return f"{size / 1e9:.2f} GB" if size >= 1e8 else f"{size / 1e6:.1f} MB"


def _files_below(path: Path) -> list[Path]:
    """The file itself, or all files of a folder; a link to a folder is a file."""
    if path.is_symlink() or not path.is_dir():
        return [path]
    found = (Path(place) / name for place, folders, names in os.walk(path) for name in (*names, *folders))
    return [one for one in found if one.is_symlink() or not one.is_dir()]


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


def leftovers_of_run(run: RunFolder) -> list[Path]:
    """Files that were never renamed into place, older than a day; where the ranks of a job that has left met."""
    torn = [path for path in (*run.path.rglob(".*.tmp"), *run.path.glob(LOCK_PARTS)) if is_old(path)]
    if look(run).state in AT_WORK or driver_status(run.study).lives:
        return torn
    return torn + [path for path in sorted(run.path.glob("stages/*/rendezvous")) if path.is_dir()]


def leftovers_of_studies() -> list[Path]:
    """Torn files beside the runs, and copies of the code that nobody will run again, older than a day."""
    torn = [path for pattern in TORN for path in sorted(runs_root().glob(pattern))]
    return [path for path in (*torn, *_unused_snapshots()) if is_old(path)]


def _unused_snapshots() -> list[Path]:
    """Copies of the code that no run, evaluation or driver names: what trained a run is kept for as long as it is.

    None at all while a study is driven: its next jobs may run any of them. Nor while a run is damaged: nobody knows
    what it names.
    """
    driven = all_studies()
    whole, damaged = readable(run for study in studies() for run in runs_of(study))
    if damaged or any(driver_status(study).lives for study in driven):
        return []
    used = {Path(job.code).name for study in driven if (job := driver_of(study)) is not None}
    used |= {code for run in whole for code in _code_of(run)}
    copies = (*sorted(runs_root().glob(".code/*")), *sorted(runs_root().glob(".code/.*")))  # whole, half made
    return [path for path in copies if path.name not in used]


def _code_of(run: RunFolder) -> set[str]:
    """Names of copies, which tell their content: a path would say where runs/ lay then, and not by which link."""
    records = (*run.path.glob("stages/*/job.json"), *run.path.glob("evaluations/*-job.json"))
    named = [job.code for path in records if (job := Job.read(path)) is not None]
    return {Path(code).name for code in (*named, *(row.get("code", "") for row in read_rows(run.provenance)))}


def is_old(path: Path) -> bool:
    try:
        return age_seconds(path) > OLD_SECONDS
    except FileNotFoundError:
        return False  # renamed into place meanwhile


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
    groups = [Group(f"{run.study}/{run.name}", run.path.parent, tuple(_files_below(run.path)), run) for run in chosen]
    for study in dict.fromkeys(run.study for run in chosen):
        folder = runs_root() / study
        places = [place for pattern in OF_DRIVER for place in sorted(folder.glob(pattern))]
        if places and set(runs_of(study)) <= set(chosen):
            files = tuple(file for place in places for file in _files_below(place))
            groups.append(Group(f"{study}: what its driver left", folder, files))
    return groups


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


def _refuse_at_work(run: RunFolder) -> None:
    driver = driver_status(run.study)
    try:
        at_work = look(run).state in AT_WORK
    except FAULTS:  # a damaged run may be deleted, too, unless a job holds it
        at_work = living_holder(run.lock) is not None
    if driver.lives or at_work:
        why = f"driven by {driver.who}" if driver.lives else "it is running or pending"
        raise UserError(f"{run.study}/{run.name}: {why}; end it first: python jobs/cancel.py {run.study}")


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
    bases = dict.fromkeys(group.base for group in groups)
    for study in bases:
        with suppress(OSError):
            study.rmdir()
    return [folder for folder in (*(group.run.path for group in groups if group.run), *bases) if folder.exists()]


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
