"""How a command ends: one line for a user's fault, and an exit status that says whose it was."""

import os
import shutil
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

from sia.errors import UserError

if TYPE_CHECKING:
    from rich.console import Console


LEAST_WIDTH = 96  # a table whose numbers are cut off tells nothing; a terminal that is narrower wraps its lines
PIPED_WIDTH = 160


def console() -> "Console":
    """Where a command prints its tables: as wide as the terminal, $COLUMNS, or a wide page where there is neither."""
    from rich.console import Console

    if not sys.stdout.isatty() and "COLUMNS" not in os.environ:
        return Console(width=PIPED_WIDTH)
    return Console(width=max(LEAST_WIDTH, shutil.get_terminal_size().columns))


def run(main: Callable[[], int | None]) -> None:
    """Call `main` and exit with its status; a UserError becomes one line on stderr (2: usage, 1: the rest).

    So does a file that cannot be read or written.
    """
    try:
        sys.exit(main() or 0)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_status)
    except OSError as error:
        if isinstance(error, BrokenPipeError):
            # The reader of a pipe such as `| head` has gone; there is nobody to tell.
            sys.stderr.close()
            sys.exit(0)
        where = f"{error.filename}: " if error.filename else ""
        print(f"error: {where}{error.strerror or error}; give a folder that can be written", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
