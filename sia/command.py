"""How a command ends: one line for a user's fault, and an exit status that says whose it was."""

import os.path
import signal
import sys

if sys.argv[0].endswith(".py") and (
    os.path.abspath(sys.argv[0]).split(os.sep)[-2] == "jobs" and callable(signal.getsignal(signal.SIGINT))
):
    # Of a command, until `run` has it, a Ctrl-C would only tell which import it met.
    signal.signal(signal.SIGINT, signal.SIG_DFL)

import argparse
import codecs
import errno
import gc
import io
import locale
import os
import shutil
import threading
from collections.abc import Callable
from types import FrameType
from typing import TYPE_CHECKING, Any

from sia.errors import UsageError, UserError
from sia.gate import close_umask

if TYPE_CHECKING:
    from rich.console import Console

PIPED_WIDTH = 160
PLAIN = str.maketrans({"→": "->", "–": "-", "±": "+/-", "×": "x", "≤": "<=", "…": "~"})
INTERRUPTED, ENDED_BY_TERM = 128 + signal.SIGINT, 128 + signal.SIGTERM


def parser(doc: str | None) -> argparse.ArgumentParser:
    """Of a command whose file has this docstring, which its --help shows as it is written, the examples at the end."""
    told, heading, examples = (doc or "").partition("examples:\n")
    form = argparse.RawDescriptionHelpFormatter
    return argparse.ArgumentParser(description=told.rstrip(), epilog=heading + examples, formatter_class=form)


def check_counts(arguments: argparse.Namespace, *names: str) -> None:
    """Raises UsageError where one of these flags was given a number below 1."""
    for name in names:
        if (value := getattr(arguments, name)) is not None and value < 1:
            raise UsageError(f"--{name.replace('_', '-')} {value}: give 1 or more")


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


def width() -> int:
    """Columns of the terminal, or $COLUMNS; of a wide page where there is neither."""
    if not sys.stdout.isatty() and "COLUMNS" not in os.environ:
        return PIPED_WIDTH
    return shutil.get_terminal_size().columns


def console() -> "Console":
    """Where a command prints its tables. Texts are shown as they are: brackets and colons in them are no markup."""
    return _console(width())


def live_console() -> "Console":
    """Where a display is redrawn in place: as wide as the terminal is, since a line that wraps could not be redrawn."""
    return _console(None)


def _console(columns: int | None) -> "Console":
    from rich.console import Console
    from rich.text import Text

    class Ours(Console):
        def on_broken_pipe(self) -> None:
            raise BrokenPipeError  # rich would exit with 1; `run` knows better

        def render_str(self, text: str, **how: Any) -> Text:
            # Before cells are measured: their columns stay straight.
            return super().render_str(text if self.encoding.startswith("utf") else plain(text), **how)

    return Ours(width=columns, markup=False, emoji=False)


def plain(text: str) -> str:
    """With what stands for those characters of ours that few encodings know."""
    return text.translate(PLAIN)


def _encode_plainly(error: UnicodeError) -> tuple[str, int]:
    """How a stream is written what its encoding does not know; of names in other scripts, their numbers."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    unknown = plain(error.object[error.start : error.end])
    return unknown.encode("ascii", "backslashreplace").decode(), error.end


def _read_utf8() -> None:
    """Begin anew in Python's UTF-8 mode where the locale is another: files are in UTF-8, wherever they are read.

    What is printed stays in the terminal's encoding.
    """
    if not sys.flags.utf8_mode and codecs.lookup(locale.getpreferredencoding(False)).name != "utf-8":
        environment = {"PYTHONIOENCODING": sys.stdout.encoding, **os.environ, "PYTHONUTF8": "1"}
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environment)


def run(main: Callable[[], int | None]) -> None:
    """Call `main` and exit with its status; a UserError becomes one line on stderr (2: usage, 1: the rest).

    So does a file that cannot be read or written. A Ctrl-C is one line, whatever it met; SIGTERM ends the command as
    it does, with a status of 143. Nobody else may write into what it makes.
    """
    close_umask()
    _read_utf8()
    codecs.register_error("plain", _encode_plainly)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="plain")  # a terminal may know less than a name or a table holds
    told = _catch_signals()
    try:
        status = main() or 0
        status = ENDED_BY_TERM if signal.SIGTERM in told and status == INTERRUPTED else status
        sys.stdout.flush()  # a reader that has gone is told here, not after the last handler
        gc.freeze()  # else all that was ever imported is looked through for garbage, for seconds
        _no_more_words()
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
    except BaseException as error:
        # What was being imported when a signal came may fail in words of its own.
        if isinstance(error, SystemExit) or not (told or isinstance(error, KeyboardInterrupt)):
            raise
        _no_more_words()
        by_term = signal.SIGTERM in told
        print("ended by SIGTERM" if by_term else "interrupted", file=sys.stderr)
        status = ENDED_BY_TERM if by_term else INTERRUPTED
        if any(not thread.daemon for thread in threading.enumerate() if thread is not threading.main_thread()):
            sys.stdout.flush()
            os._exit(status)  # Python would wait for what they do
        sys.exit(status)


def _catch_signals() -> list[int]:
    """Make SIGINT and SIGTERM a KeyboardInterrupt, the latter once; the list of those that came.

    A debugger's SIGINT stays its own, one that is ignored stays so.
    """
    told: list[int] = []

    def come(number: int, frame: FrameType | None) -> None:
        told.append(number)
        if number == signal.SIGINT or told.count(number) == 1:
            raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, come)
    if signal.getsignal(signal.SIGINT) in (signal.default_int_handler, signal.SIG_DFL):
        signal.signal(signal.SIGINT, come)
    return told


def _no_more_words() -> None:
    """From here on a Ctrl-C ends the process at once: there is nothing to save, and Python shows its stack."""
    if callable(signal.getsignal(signal.SIGINT)):
        signal.signal(signal.SIGINT, signal.SIG_DFL)


def _cure(error: OSError) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return "free some room, then run it again: nothing half-written is left"
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return "let this user read it (or write into it), or give another"
    return "see whether it is there and its file system answers, then run it again"
