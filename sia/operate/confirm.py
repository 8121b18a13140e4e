"""Ask before something is ended or deleted."""

import sys

from sia.errors import UsageError


def confirmed(yes: bool, question: str) -> bool:
    """Whether to go ahead: `yes`, or a y on a terminal. Raises UsageError where there is neither."""
    if yes:
        return True
    if not sys.stdin.isatty():
        raise UsageError(f"{question} There is no terminal to ask on, and nothing was done; add --yes to go ahead")
    try:
        agreed = input(f"{question} [y/N] ").strip().lower() in ("y", "yes")
    except EOFError:
        agreed = False
    if not agreed:
        print("nothing was done")
    return agreed
