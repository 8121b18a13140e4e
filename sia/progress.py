"""How far a long task has come: a bar where a terminal is there, plain lines where not."""

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

Item = TypeVar("Item")


def tracked(
    items: Iterable[Item], label: str, total: int, every_seconds: float = 10.0, done: int = 0
) -> Iterator[Item]:
    """The items one by one, shown as they are taken; `done` of the `total` were taken before."""
    return _bar(items, label, total, done) if sys.stdout.isatty() else _lines(items, label, total, every_seconds, done)


def _bar(items: Iterable[Item], label: str, total: int, done: int) -> Iterator[Item]:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, transient=True) as bar:
        task = bar.add_task(label, total=total, completed=done)
        for item in items:
            yield item
            bar.advance(task)


def _lines(items: Iterable[Item], label: str, total: int, every_seconds: float, done: int) -> Iterator[Item]:
    said = time.monotonic()
    for count, item in enumerate(items, start=done + 1):
        yield item
        if time.monotonic() - said >= every_seconds:
            said = time.monotonic()
            print(f"{label}: {count} of {total}", flush=True)
