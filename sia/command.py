"""How a command ends: one line for a user's fault, and an exit status that says whose it was."""

import errno
import os
import shutil
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

from sia.errors import UserError
from sia.gate import close_umask

if TYPE_CHECKING:
    from rich.console import Console


LEAST_WIDTH = 96  # a table whose numbers are cut off tells nothing; a terminal that is narrower wraps its lines
PIPED_WIDTH = 160


def width() -> int:
    """Columns of the terminal, or $COLUMNS; of a wide page where there is neither."""
    if not sys.stdout.isatty() and "COLUMNS" not in os.environ:
        return PIPED_WIDTH
    return shutil.get_terminal_size().columns


def console() -> "Console":
    """Where a command prints its tables. Texts are shown as they are: brackets and colons in them are no markup."""
    from rich.console import Console

    class Piped(Console):
        def on_broken_pipe(self) -> None:
            raise BrokenPipeError  # rich would exit with 1; `run` knows better

    return Piped(width=max(LEAST_WIDTH, width()), markup=False, emoji=False)


def live_console() -> "Console":
    """Where a display is redrawn in place: as wide as the terminal is, since a line that wraps could not be redrawn."""
    from rich.console import Console

    return Console(markup=False, emoji=False)


def run(main: Callable[[], int | None]) -> None:
    """Call `main` and exit with its status; a UserError becomes one line on stderr (2: usage, 1: the rest).

    So does a file that cannot be read or written. Nobody else may write into what it makes.
    """
    close_umask()
    try:
        status = main() or 0
        sys.stdout.flush()  # a reader that has gone is told here, not after the last handler
        sys.exit(status)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_status)
    except OSError as error:
        if isinstance(error, BrokenPipeError):
            # The reader of a pipe such as `| head` has gone; there is nobody to tell.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(0)
        where = f"{error.filename}: " if error.filename else ""
        print(f"error: {where}{error.strerror or error}; {_cure(error)}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)


def _cure(error: OSError) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return "free some room, then run it again: nothing half-written is left"
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return "let this user read it (or write into it), or give another"
    return "see whether it is there and its file system answers, then run it again"
