"""What a sweep shows while it runs, read from the run folders: a live table on a terminal, plain lines elsewhere."""

import sys
import threading
import time
from collections.abc import Callable, Sequence

from rich.console import Console
from rich.live import Live
from rich.text import Text

from sia import command
from sia.operate.live_status import LiveRuns, Shown
from sia.operate.status import RunView, StudyView, run_views
from sia.operate.status_table import count_line, percent, views_table
from sia.run.folder import RunFolder

EVERY_SECONDS = 1.0


class SweepDisplay:
    """Follows the runs in a thread, between `with` and its end."""

    def __init__(self, runs: list[RunFolder]) -> None:
        self.runs = runs
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._live if sys.stdout.isatty() else self._lines, daemon=True)

    def __enter__(self) -> "SweepDisplay":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join(timeout=10)

    def _live(self) -> None:
        with Live(self._shown(), console=command.live_console(), refresh_per_second=2) as live:
            while not self._over.wait(EVERY_SECONDS):
                live.update(self._shown())
            live.update(self._shown())

    def _shown(self) -> LiveRuns:
        study = self.runs[0].study if self.runs else ""
        return LiveRuns([Shown(study, run_views(self.runs))])

    def _lines(self) -> None:
        news = News()
        while not self._over.wait(EVERY_SECONDS):
            news.say(run_views(self.runs))
        news.say(run_views(self.runs))


class News:
    """Says a line of each run whose state, epoch or error is another than when it was last asked."""

    def __init__(self) -> None:
        self._said: dict[str, tuple[str, int, str]] = {}

    def say(self, runs: list[RunView]) -> None:
        for run in runs:
            news = (run.state, run.epoch, run.error)
            if self._said.get(run.folder) != news:
                self._said[run.folder] = news
                why = f": {run.error}" if run.error else ""
                print(f"{run.run}: {run.state}, stage {run.stage}{_measures(run)}{why}", flush=True)


def _measures(run: RunView) -> str:
    if run.speech_to_image is None:
        return ""
    recalls = f"s→i {percent(run.speech_to_image)}, i→s {percent(run.image_to_speech)}"
    return f", epoch {run.epoch}, {run.measured_on} R@10 in percent: {recalls}"


def watch_studies(look: Callable[[], list[StudyView]], every_seconds: float) -> None:
    """Show the studies anew every so many seconds, until a KeyboardInterrupt, which passes through."""
    if not sys.stdout.isatty():
        _say_news(look, every_seconds)
    with Live(_live(look()), console=command.live_console(), auto_refresh=False) as live:
        while True:
            time.sleep(every_seconds)
            live.update(_live(look()), refresh=True)


def _live(studies: Sequence[StudyView]) -> LiveRuns:
    return LiveRuns([Shown(one.study, one.runs, one.driver_line, one.driver.lives) for one in studies])


def _say_news(look: Callable[[], list[StudyView]], every_seconds: float) -> None:
    drivers: dict[str, str] = {}
    news = News()
    while True:
        for study in look():
            if drivers.get(study.study) != study.driver_line:
                drivers[study.study] = study.driver_line
                print(study.driver_line, flush=True)
            news.say(study.runs)
        time.sleep(every_seconds)


def print_studies(studies: Sequence[StudyView], console: Console) -> None:
    """Of each study, who drives it, how many runs are in which state, their table, and whole lines of their errors."""
    for study in studies:
        console.print(Text(study.driver_line), soft_wrap=True)
        if study.runs:
            console.print(Text(count_line(study.runs)), soft_wrap=True)
            console.print(views_table(study.study, study.runs))
        for run in study.runs:
            if run.error:
                console.print(Text(f"{run.run}: {run.error}"), soft_wrap=True)
