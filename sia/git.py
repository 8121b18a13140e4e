"""What git says of the tree that this code lies in, whoever owns it and however git is configured."""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

from sia.gate import PARTS

GIT_SECONDS = 20


def commit(tree: Path) -> str:
    """The commit that is checked out; empty where there is no git, or the tree is no repository of its own."""
    return (_git(tree, "rev-parse", "HEAD") or b"").decode().strip()


def is_dirty(tree: Path) -> bool | None:
    """Whether the code differs from that commit, in files that git does not know yet, too; None where nobody knows."""
    listed = _git(tree, "status", "--porcelain", "--untracked-files=normal", "--", *PARTS)
    return None if listed is None else bool(listed)


def files(tree: Path) -> list[Path] | None:
    """The code's files that are in the commit, or new and not ignored; None where nobody knows."""
    listed = _git(tree, "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", *PARTS)
    return None if listed is None else [tree / name for name in _names(listed)]


def difference(tree: Path, tells: Callable[[Path], bool] = lambda path: True) -> bytes:
    """The patch from that commit to the code, as `git apply` takes it; as bytes, for a file may be in any encoding.

    It holds the files of which `tells` is true.
    """
    plain = ("--no-color", "--no-ext-diff", "--no-textconv", "--src-prefix=a/", "--dst-prefix=b/", "--binary")
    changed = _names(_git(tree, "diff", "HEAD", "--name-only", "--no-renames", "-z", "--", *PARTS) or b"")
    told = [f":(literal){name}" for name in changed if tells(Path(name))]
    return (_git(tree, "diff", "HEAD", "--no-renames", *plain, "--", *told) or b"") if told else b""


def _names(listed: bytes) -> list[str]:
    return sorted(set(os.fsdecode(listed).split("\0")) - {""})


def _git(tree: Path, *arguments: str) -> bytes | None:
    if not (tree / ".git").exists():
        return None
    # A checkout may be a colleague's, which git refuses to read unless it is told to.
    command = ["git", "-c", f"safe.directory={tree}", "-C", str(tree), *arguments]
    try:
        answer = subprocess.run(command, capture_output=True, timeout=GIT_SECONDS)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return answer.stdout if answer.returncode == 0 else None
