"""What git says of the tree that this code lies in, whoever owns it and however git is configured."""

import subprocess
from pathlib import Path

GIT_SECONDS = 20
PARTS = ("sia", "jobs")  # the code that jobs run: all that a commit and its difference are told of


def commit(tree: Path) -> str:
    """The commit that is checked out; empty where there is no git, or the tree is no repository of its own."""
    return (_git(tree, "rev-parse", "HEAD") or b"").decode().strip()


def is_dirty(tree: Path) -> bool | None:
    """Whether the code differs from that commit, in files that git does not know yet, too; None where nobody knows."""
    listed = _git(tree, "status", "--porcelain", "--untracked-files=normal", "--", *PARTS)
    return None if listed is None else bool(listed)


def difference(tree: Path) -> bytes:
    """The patch from that commit to the code, as `git apply` takes it; as bytes, for a file may be in any encoding."""
    plain = ("--no-color", "--no-ext-diff", "--no-textconv", "--src-prefix=a/", "--dst-prefix=b/", "--binary")
    return _git(tree, "diff", "HEAD", *plain, "--", *PARTS) or b""


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
