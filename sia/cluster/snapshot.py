"""The code as it is now, in a folder named by its content, from which jobs run it whatever happens to the working tree.

`runs/.code/<digest>/` holds sia/ and jobs/ with uncommitted changes in them, code.json (commit, time, packages) and,
where the tree differs from that commit, changes.diff. All jobs of the same content share it. It loads no torch.
"""

import hashlib
import os
import shutil
import time
from contextlib import suppress
from importlib.metadata import distributions
from pathlib import Path
from uuid import uuid4

import sia
from sia import git
from sia.atomic import write_json
from sia.run_folder import own_folder, runs_root

RECORD, DIFFERENCE = "code.json", "changes.diff"


def snapshot(tree: Path | None = None) -> Path:
    """The folder of the code's copy, made where it is not there yet. `tree` holds sia/ and jobs/; default: this one."""
    tree = tree or Path(sia.__file__).resolve().parents[1]
    files = _files(tree)
    folder = runs_root() / ".code" / _digest(tree, files)
    own_folder(folder.parent)
    if not (folder / RECORD).is_file():
        unfinished = folder.with_name(f".{folder.name}.{uuid4().hex[:8]}")
        try:
            _fill(unfinished, tree, files)
        except OSError as error:
            shutil.rmtree(unfinished, ignore_errors=True)
            # The file it names is the one that is copied, not the one that could not be written.
            raise OSError(error.errno, error.strerror, str(folder)) from None
        try:
            os.replace(unfinished, folder)
        except OSError:  # another driver was first
            shutil.rmtree(unfinished)
    # Its time tells jobs/clean.py that it is wanted.
    os.utime(folder)
    return folder


def _files(tree: Path) -> list[Path]:
    found = [path for part in git.PARTS for path in sorted((tree / part).rglob("*"))]
    return [path for path in found if path.is_file() and "__pycache__" not in path.parts]


def _digest(tree: Path, files: list[Path]) -> str:
    content = hashlib.sha256()
    for path in files:
        name, body = path.relative_to(tree).as_posix().encode(), path.read_bytes()
        content.update(b"%d %d\n" % (len(name), len(body)) + name + body)
    return content.hexdigest()[:12]


def _fill(folder: Path, tree: Path, files: list[Path]) -> None:
    for path in files:
        copy = folder / path.relative_to(tree)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copy)
    if patch := git.difference(tree):
        (folder / DIFFERENCE).write_bytes(patch)
    write_json(
        folder / RECORD,
        {
            "digest": folder.name.split(".")[1],
            "git_commit": git.commit(tree),
            "git_dirty": git.is_dirty(tree),
            "time": time.time(),
            "packages": _packages(),
        },
    )


def _packages() -> dict[str, str]:
    """The version of each installed package; what a broken installation left behind has none, or raises."""
    found: dict[str, str] = {}
    for package in distributions():
        with suppress(OSError, KeyError, TypeError):
            found[package.name] = package.version
    return {name: found[name] for name in sorted(name for name, version in found.items() if name and version)}
