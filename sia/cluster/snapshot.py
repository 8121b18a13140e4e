"""The code as it is now, in a folder named by its content, from which jobs run it whatever happens to the working tree.

`runs/.code/<digest>/` holds sia/ and jobs/ with uncommitted changes in them, code.json (commit, time, packages) and,
where the tree differs from that commit, changes.diff. All jobs of the same content share it. It loads no torch.
"""

import hashlib
import os
import shutil
import subprocess
import time
from contextlib import suppress
from importlib.metadata import distributions
from pathlib import Path
from uuid import uuid4

import sia
from sia.atomic import write_json
from sia.run_folder import private_folder, runs_root

PARTS = ("sia", "jobs")
RECORD, DIFFERENCE = "code.json", "changes.diff"
GIT_SECONDS = 20


def snapshot(tree: Path | None = None) -> Path:
    """The folder of the code's copy, made where it is not there yet. `tree` holds sia/ and jobs/; default: this one."""
    tree = tree or Path(sia.__file__).resolve().parents[1]
    files = _files(tree)
    folder = runs_root() / ".code" / _digest(tree, files)
    if not (folder / RECORD).is_file():
        private_folder(folder.parent)
        unfinished = folder.with_name(f".{folder.name}.{uuid4().hex[:8]}")
        _fill(unfinished, tree, files)
        try:
            os.replace(unfinished, folder)
        except OSError:  # another driver was first
            shutil.rmtree(unfinished)
    # Its time tells jobs/clean.py that it is wanted.
    os.utime(folder)
    return folder


def _files(tree: Path) -> list[Path]:
    found = [path for part in PARTS for path in sorted((tree / part).rglob("*"))]
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
    difference = _git(tree, "diff", "HEAD")
    if difference:
        # As bytes: a changed file may be in any encoding.
        (folder / DIFFERENCE).write_bytes(difference)
    write_json(
        folder / RECORD,
        {
            "digest": folder.name.split(".")[1],
            "git_commit": _git(tree, "rev-parse", "HEAD").decode().strip(),
            "git_dirty": bool(_git(tree, "status", "--porcelain")),
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


def _git(tree: Path, *arguments: str) -> bytes:
    """What git says; nothing where there is no git, or the tree is no repository of its own."""
    if not (tree / ".git").exists():
        return b""
    command = ["git", "-C", str(tree), *arguments]
    try:
        answer = subprocess.run(command, capture_output=True, timeout=GIT_SECONDS)
    except (OSError, subprocess.TimeoutExpired):
        return b""
    return answer.stdout if answer.returncode == 0 else b""
