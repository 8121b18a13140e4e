"""How far a long wait has come: a line that moves where a terminal is there, plain lines every so often where not."""

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from rich.progress import Progress

Item = TypeVar("Item")
Tell = Callable[[str], None]
EVERY_SECONDS = 10.0


def tracked(
    items: Iterable[Item],
    label: str,
    total: int,
    every_seconds: float = EVERY_SECONDS,
    done: int = 0,
    quiet: bool = False,
) -> Iterator[Item]:
    """The items one by one, shown as they are taken; `done` of the `total` were taken before. quiet: nothing is shown,
    as for programs that read what a command prints.
    """
    if quiet:
        return iter(items)
    return _bar(items, label, total, done) if sys.stdout.isatty() else _lines(items, label, total, every_seconds, done)


@contextmanager
def waiting(label: str, every_seconds: float = EVERY_SECONDS, quiet: bool = False) -> Iterator[Tell]:
    """A wait of which nobody knows the length: what its body tells is shown beside the label, in one line each time."""
    if quiet:
        yield lambda text: None
    elif not sys.stdout.isatty():
        yield Said(label, every_seconds).tell
    else:
        from rich.progress import TextColumn

        with _display(TextColumn("{task.fields[told]}")) as shown:
            task = shown.add_task(label, total=None, told="")
            yield lambda text: shown.update(task, told=text)


def _bar(items: Iterable[Item], label: str, total: int, done: int) -> Iterator[Item]:
    from rich.progress import BarColumn, MofNCompleteColumn, TimeRemainingColumn

    with _display(BarColumn(bar_width=20), MofNCompleteColumn(), TimeRemainingColumn(compact=True)) as shown:
        task = shown.add_task(label, total=total, completed=done)
        for item in items:
            yield item
            shown.advance(task)


def _display(*columns: object) -> "Progress":
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    # A spinner that any encoding has. Of a line that is too long the terminal would keep a part.
    ours: list[object] = [SpinnerColumn("line"), TimeElapsedColumn(), TextColumn("{task.description}"), *columns]
    return Progress(*ours, transient=True)  # type: ignore[arg-type]


def _lines(items: Iterable[Item], label: str, total: int, every_seconds: float, done: int) -> Iterator[Item]:
    said = Said(label, every_seconds)
    for count, item in enumerate(items, start=done + 1):
        yield item
        said.tell(f"{count} of {total}")


class Said:
    """Prints what is told where it is news, and the last time was so many seconds ago."""

    def __init__(self, label: str, every_seconds: float = EVERY_SECONDS) -> None:
        self.label, self.every_seconds = label, every_seconds
        self.last, self.at = "", time.monotonic()

    def tell(self, text: str) -> None:
        if text != self.last and time.monotonic() - self.at >= self.every_seconds:
            self.last, self.at = text, time.monotonic()
            print(f"{self.label}: {text}", flush=True)
