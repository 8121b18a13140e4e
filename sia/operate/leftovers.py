"""What killed jobs and old submissions leave behind: torn files, meeting places, copies of the code. No torch."""

from pathlib import Path

from sia.clock import age_seconds
from sia.operate.damage import readable
from sia.operate.retention import AT_WORK
from sia.operate.status import all_studies
from sia.run.driver import driver_of, driver_status
from sia.run.folder import RunFolder, runs_of, runs_root, studies
from sia.run.metrics import read_rows
from sia.run.records import Job
from sia.run.state import look

OLD_SECONDS = 24 * 3600.0
LOCK_PARTS = ".*.lock.*"  # of a process that was killed while it took the lock
REMOVED = ".removed"  # ends the name of a run that is being deleted
TORN = (".*.tmp", "*/.*.tmp", "*/driver/.*.tmp", f"*/{LOCK_PARTS}", f"*/driver/{LOCK_PARTS}", f"*/.*{REMOVED}")


def leftovers_of_run(run: RunFolder) -> list[Path]:
    """Files that were never renamed into place, older than a day; where the ranks of a job that has left met."""
    torn = [path for path in (*run.path.rglob(".*.tmp"), *run.path.glob(LOCK_PARTS)) if is_old(path)]
    if look(run).state in AT_WORK or driver_status(run.study).lives:
        return torn
    return torn + [path for path in sorted(run.path.glob("stages/*/rendezvous")) if path.is_dir()]


def leftovers_of_studies() -> list[Path]:
    """Torn files beside the runs, older than a day, and copies of the code that nobody will run again."""
    root = runs_root()
    torn = [path for pattern in TORN for path in sorted(root.glob(pattern))]
    return [path for path in torn if is_old(path)] + old_snapshots()


def old_snapshots() -> list[Path]:
    """Copies of the code, not asked for since a day, that no run, evaluation or driver names: what trained a run is
    kept for as long as the run is.

    None at all while a study is driven: its next jobs may run any of them.
    """
    known = studies()
    driven = all_studies()
    if any(driver_status(study).lives for study in driven):
        return []
    used = {Path(job.code).name for study in driven if (job := driver_of(study)) is not None}
    for study in known:
        whole, damaged = readable(runs_of(study))
        if damaged:
            return []  # nobody knows what they name
        used |= {code for run in whole for code in _code_of(run)}
    return [
        path for path in sorted(runs_root().glob(".code/*")) + _half_copied() if path.name not in used and is_old(path)
    ]


def _code_of(run: RunFolder) -> set[str]:
    """Names of copies, which tell their content: a path would say where runs/ lay then, and not by which link."""
    records = (*run.path.glob("stages/*/job.json"), *run.path.glob("evaluations/*-job.json"))
    named = [job.code for path in records if (job := Job.read(path)) is not None]
    return {Path(code).name for code in (*named, *(row.get("code", "") for row in read_rows(run.provenance)))}


def _half_copied() -> list[Path]:
    return sorted(runs_root().glob(".code/.*"))


def is_old(path: Path) -> bool:
    try:
        return age_seconds(path) > OLD_SECONDS
    except FileNotFoundError:
        return False  # renamed into place meanwhile
