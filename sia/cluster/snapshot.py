"""The code as it is now, in a folder named by its content, from which jobs run it whatever happens to the working tree.

`runs/.code/<digest>/` holds sia/ and jobs/ with uncommitted changes in them, code.json (commit, time, packages, the
files' digests) and, where the tree differs from that commit, changes.diff. All jobs of the same content share it. What
git ignores, what lies elsewhere, and what looks like a key is no part of it. It loads no torch.
"""

import os
import shutil
import sys
import time
from contextlib import suppress
from fnmatch import fnmatch
from importlib.metadata import distributions
from pathlib import Path
from uuid import uuid4

import sia
from sia import gate, git
from sia.atomic import write_json
from sia.errors import UserError
from sia.gate import CACHE, DIFFERENCE, PARTS, RECORD, own_folder
from sia.run.folder import runs_root

COPIES = ".code"
# Where no git tells which files are code.
CODE = ("*.py", "*.yaml", "*.md", "*.html", "*.css", "*.js", "*.tex", "py.typed")
KEYS = (
    *(".env", ".env.*", "*.env", ".netrc", ".pgpass", "*.pem", "*.key", "*.p12", "*.pfx", "*.jks", "*.kdbx"),
    *("id_rsa*", "id_dsa*", "id_ecdsa*", "id_ed25519*", "*credential*", "*secret*", "*token*", "*passw*"),
)


def snapshot(tree: Path | None = None) -> Path:
    """The folder of the code's copy, made where it is not there yet or not as it was. `tree` holds sia/ and jobs/;
    default: this one. Raises UserError where others can write into the folder of all runs, and for a tree that is a
    copy and was changed.
    """
    tree = tree or this_tree()
    if tree.parent.name == COPIES and (fault := gate.fault_of_code(tree)):
        raise UserError(fault)
    digests = gate.digests(tree, _files(tree, say=True))
    folder = runs_root() / COPIES / gate.digest(digests)
    if fault := gate.open_to_others(runs_root()):
        raise UserError(fault)
    own_folder(folder.parent)
    if not (folder / RECORD).is_file() or gate.fault_of_code(folder):
        _lay_down(folder, tree, digests)
    # Its time tells jobs/clean.py that it is wanted.
    os.utime(folder)
    return folder


def check_snapshot(code: Path, study: str = "") -> None:
    """Before a job runs it: one that is not as it was is laid down again, from a tree that still has its content.

    Raises UserError, which names the file, where there is no such tree.
    """
    if fault := gate.fault_of_code(code, study):
        tree = this_tree()
        if tree == code or gate.digest(gate.digests(tree, _files(tree))) != code.name:
            raise UserError(fault)
        snapshot(tree)


def this_tree() -> Path:
    return Path(sia.__file__).resolve().parents[1]


def _files(tree: Path, say: bool = False) -> list[Path]:
    """The tree's code; of what else lies there a line tells, where that is asked for."""
    if (tree / RECORD).is_file():
        return gate.copied(tree)  # a copy itself, from which a detached driver runs
    told = git.files(tree)
    found = [path for part in PARTS for path in sorted((tree / part).rglob("*"))] if told is None else told
    listed = [path for path in found if path.is_file() and CACHE not in path.parts]
    inside = [path for path in listed if path.resolve().is_relative_to(tree.resolve()) and not _is_key(path)]
    code = [path for path in inside if told is not None or _matches(path.name, CODE)]
    if say and (left := sorted(str(path.relative_to(tree)) for path in {*listed} - {*code})):
        some, why = ", ".join(left[:8]) + (", ..." if len(left) > 8 else ""), "keys by their names, links out of it"
        print(f"left out of the code that jobs run ({why}, or no code): {some}", file=sys.stderr)
    return code


def _is_key(path: Path) -> bool:
    """By its name, and by that of what it links to; a module such as tokens.py is code."""
    return any(one.suffix != ".py" and _matches(one.name, KEYS) for one in (path, path.resolve()))


def _matches(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatch(name.lower(), pattern) for pattern in patterns)


def _lay_down(folder: Path, tree: Path, digests: dict[str, str]) -> None:
    unfinished = folder.with_name(f".{folder.name}.{uuid4().hex[:8]}")
    try:
        _fill(unfinished, tree, digests)
    except OSError as error:
        shutil.rmtree(unfinished, ignore_errors=True)
        # The file it names is the one that is copied, not the one that could not be written.
        raise OSError(error.errno, error.strerror, str(folder)) from None
    try:
        os.replace(unfinished, folder)
    except OSError:  # it is there: another driver was first, or it was changed
        _mend(folder, unfinished)
        shutil.rmtree(unfinished)


def _mend(folder: Path, whole: Path) -> None:
    """Put the whole copy's files in their places, one by one, for jobs may be running from the folder."""
    for path in gate.copied(folder):
        if not (whole / path.relative_to(folder)).is_file():
            path.unlink(missing_ok=True)
    for path in (whole, *sorted(whole.rglob("*"))):
        there = folder / path.relative_to(whole)
        if path.is_dir():
            there.mkdir(exist_ok=True)
            gate.close(there)
        else:
            os.replace(path, there)


def _fill(folder: Path, tree: Path, digests: dict[str, str]) -> None:
    for name in digests:
        copy = folder / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(tree / name, copy)
    if patch := git.difference(tree, lambda path: not _is_key(path)):
        # Its owner's alone: what was taken out of the code, such as a password, is in it, too.
        with open(folder / DIFFERENCE, "wb", opener=lambda path, flags: os.open(path, flags, 0o600)) as stream:
            stream.write(patch)
    write_json(
        folder / RECORD,
        {
            "digest": gate.digest(digests),
            "git_commit": git.commit(tree),
            "git_dirty": git.is_dirty(tree),
            "time": time.time(),
            "packages": _packages(),
            "files": digests,
        },
    )
    for path in (folder, *folder.rglob("*")):
        gate.close(path)


def _packages() -> dict[str, str]:
    """The version of each installed package; what a broken installation left behind has none, or raises."""
    found: dict[str, str] = {}
    for package in distributions():
        with suppress(OSError, KeyError, TypeError):
            found[package.name] = package.version
    return {name: found[name] for name in sorted(name for name, version in found.items() if name and version)}
