"""What a job does first: see that nobody else could have changed what it is about to run, and that nothing did.

submitit executes a pickle, and jobs import a copy of the code. The command line of a job, which the cluster keeps,
holds this file's digest and its place in that copy: so it imports nothing of sia.
"""

import hashlib
import json
import os
import shlex
import shutil
import stat
import sys
import time
from collections.abc import Iterable
from pathlib import Path

PARTS = ("sia", "jobs")  # the code that jobs run
RECORD, DIFFERENCE = "code.json", "changes.diff"
PICKLE_SECONDS = 60  # submitit gives the pickle its name after the job is submitted
OTHERS_WRITE = 0o022
CACHE = "__pycache__"


def close_umask() -> None:
    """From now on nobody else may write into what this process makes; who may read it is the user's choice."""
    os.umask(os.umask(0o077) | OTHERS_WRITE)


def close(path: Path) -> None:
    path.chmod(stat.S_IMODE(path.stat().st_mode) & ~OTHERS_WRITE)


def own_folder(path: Path) -> None:
    """Make a folder that nobody else may write into: submitit executes the pickles that lie in those of its jobs.

    Colleagues may read its logs, as far as the user's umask lets them.
    """
    for folder in reversed([one for one in (path, *path.parents) if not one.exists()]):
        folder.mkdir(mode=0o755, exist_ok=True)
    close(path)


def open_to_others(path: Path) -> str | None:
    """Who else can write there, with the cure; None where only this user and root can, or nothing is there."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    if found.st_uid not in (0, os.geteuid()):
        return f"{path} belongs to another user (uid {found.st_uid}), whose code jobs would run; use a folder of yours"
    if found.st_mode & OTHERS_WRITE and not found.st_mode & stat.S_ISVTX:
        return f"{path} can be written by others, whose code jobs would run; chmod -R go-w {path}"
    return None


def open_between(top: Path, folder: Path) -> str | None:
    """The same of the folders from `top` down to `folder`."""
    return _first_open(one for one in (*reversed(folder.parents), folder) if one.is_relative_to(top))


def _first_open(paths: Iterable[Path]) -> str | None:
    return next((fault for path in paths if (fault := open_to_others(path))), None)


def digests(tree: Path, files: Iterable[Path]) -> dict[str, str]:
    """SHA-256 of each file, by its name in the tree."""
    return {path.relative_to(tree).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def digest(files: dict[str, str]) -> str:
    """The name of a copy with these files."""
    told = "".join(f"{sha} {name}\n" for name, sha in sorted(files.items()))
    return hashlib.sha256(told.encode()).hexdigest()[:12]


def copied(code: Path) -> list[Path]:
    """All files that a copy of the code holds, besides its record, its difference and Python's caches."""
    told = {code / RECORD, code / DIFFERENCE}
    files = (path for path in _inside(code) if path.is_symlink() or not path.is_dir())
    return [path for path in files if path not in told and CACHE not in path.parts]


def _inside(code: Path) -> list[Path]:
    # Not rglob, which raises where another rank deletes a cache meanwhile.
    return sorted(Path(folder, name) for folder, *names in os.walk(code) for name in (*names[0], *names[1]))


def study_in(top: Path, folder: Path) -> str:
    """The study whose folder, in that of all runs, has this one in it; "" where none has."""
    inside = folder.relative_to(top).parts if folder.is_relative_to(top) else ()
    return inside[0] if inside[1:] else ""


def anew(study: str) -> str:
    """What makes a copy of the code once more."""
    again = f"python jobs/submit.py --again {shlex.quote(study)}" if study else "the same command from the repository"
    return f"{again} copies the code anew"


def fault_of_code(code: Path, study: str = "") -> str | None:
    """What in the copy others can write, or is not as it was when it was made; None where nothing is. study: whose
    job, or driver, is to run it.
    """
    inside = _inside(code)
    # Python runs a cached module without reading its source. Without any, a start takes 0.05 s longer.
    for cache in (path for path in inside if path.name == CACHE):
        shutil.rmtree(cache, ignore_errors=True)
    if link := next((path for path in inside if path.is_symlink()), None):
        return f"{link} is a link, which no copy of the code holds; remove it: {anew(study)}"
    if fault := _first_open((code, *inside)):
        return fault
    found = digests(code, copied(code))
    if digest(found) == code.name:
        return None
    return f"{_changed(code, found)} is not as it was when it was copied; {anew(study)}"


def _changed(code: Path, found: dict[str, str]) -> Path:
    try:
        known = json.loads((code / RECORD).read_bytes())["files"]
        return code / min(name for name in {*found, *known} if found.get(name) != known.get(name))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return code


def enter(code: str, top: str) -> None:
    """Called in every rank of a job, whose last argument is the folder of its pickle: let submitit load it, or exit."""
    close_umask()
    folder = Path(sys.argv[-1])
    if fault := open_between(Path(top), folder) or fault_of_code(Path(code), study_in(Path(top), folder)):
        sys.exit(f"error: {fault}")
    # The working folder, which Python puts first, is no place for a job's code.
    sys.path[:] = [code, *(place for place in sys.path if place)]
    from submitit.core._submit import submitit_main
    from submitit.core.job_environment import JobEnvironment
    from submitit.core.utils import JobPaths

    pickle = JobPaths(folder, JobEnvironment().job_id).submitted_pickle
    for _ in range(PICKLE_SECONDS):
        if pickle.exists():
            break
        time.sleep(1)
    if pickle.exists() and (fault := open_to_others(pickle)):
        sys.exit(f"error: {fault}")
    sys.argv = [sys.argv[0], str(folder)]
    submitit_main()
