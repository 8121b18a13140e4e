"""What a sweep shows while it runs, read from the run folders: a live table on a terminal, plain lines elsewhere."""

import sys
import threading
import time
from collections.abc import Callable

from rich.box import SIMPLE
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table

from sia.run_folder import RunFolder
from sia.sweep.status import RunView, StudyView, run_views
from sia.training.selection import protocol

EVERY_SECONDS = 1.0
HEADINGS = {
    **{"run": "run", "state": "state", "stage": "stage", "epoch": "epoch", "job": "job"},
    **{"s→i": "speech_to_image", "i→s": "image_to_speech", "best": "best"},
}
MIXED = {"on": "measured_on"}
ALIVE = {"heartbeat": "heartbeat"}


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
        with Live(status_table(self.runs), refresh_per_second=2) as live:
            while not self._over.wait(EVERY_SECONDS):
                live.update(status_table(self.runs))
            live.update(status_table(self.runs))

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


def watch_studies(look: Callable[[], list[StudyView]], every_seconds: float, console: Console) -> None:
    """Show the studies anew every so many seconds, until a KeyboardInterrupt, which passes through."""
    if not console.is_terminal:
        drivers: dict[str, str] = {}
        news = News()
        while True:
            for study in look():
                if drivers.get(study.study) != study.driver_line:
                    drivers[study.study] = study.driver_line
                    print(study.driver_line, flush=True)
                news.say(study.runs)
            time.sleep(every_seconds)
    with Live(studies_shown(look()), console=console, auto_refresh=False) as live:
        while True:
            time.sleep(every_seconds)
            live.update(studies_shown(look()), refresh=True)


def studies_shown(studies: list[StudyView]) -> Group:
    """Of each study, who drives it and the table of its runs."""
    parts: list[RenderableType] = []
    for study in studies:
        parts += [study.driver_line, *([views_table(study.study, study.runs)] if study.runs else [])]
    return Group(*parts)


def status_table(runs: list[RunFolder]) -> Table:
    """The table of these runs as they are now, all of one study."""
    return views_table(runs[0].study if runs else "", run_views(runs))


def views_table(study: str, runs: list[RunView]) -> Table:
    """A row a run: state, stage, epoch, job, R@10 of the last epoch, the best mean of both directions (percent).

    The title names the split that they are of; where runs differ in it, a column does. Runs that are under way tell
    how many seconds ago they gave a sign of life; errors stand below.
    """
    splits = {run.measured_on for run in runs}
    table = Table(title=_title(study, splits) if runs else None, box=SIMPLE)
    headings = HEADINGS if len(splits) < 2 else {**HEADINGS, **MIXED}
    headings = {**headings, **ALIVE} if any(run.heartbeat_seconds is not None for run in runs) else headings
    for heading in headings:
        table.add_column(heading, no_wrap=True)
    for run in runs:
        cells = status_cells(run)
        table.add_row(*(cells[key] for key in headings.values()))
    table.caption = "\n".join(f"{run.run}: {run.error}" for run in runs if run.error) or None
    table.caption_justify = "left"
    return table


def _title(study: str, splits: set[str]) -> str:
    where = f" on {protocol(*splits)}" if len(splits) == 1 else ""
    return f"{study}: R@10{where} of the last epoch, and the best mean of both directions, in percent"


def status_cells(run: RunView) -> dict[str, str]:
    """What status tells of a run, as text."""
    under_way = "" if run.share_of_epoch is None else f" +{run.share_of_epoch:.0%}"
    return {
        "run": run.run,
        "state": run.state,
        "stage": f"{run.stage}/{run.stages}",
        "epoch": f"{run.epoch}/{run.epochs}{under_way}",
        "job": f"{run.job_id} {run.reason}".strip(),
        "speech_to_image": _percent(run.speech_to_image),
        "image_to_speech": _percent(run.image_to_speech),
        "best": _percent(run.best),
        "measured_on": run.measured_on,
        "heartbeat": "" if run.heartbeat_seconds is None else f"{run.heartbeat_seconds:.0f} s ago",
    }


def _measures(run: RunView) -> str:
    if run.speech_to_image is None:
        return ""
    recalls = f"s→i {_percent(run.speech_to_image)}, i→s {_percent(run.image_to_speech)}"
    return f", epoch {run.epoch}, {run.measured_on} R@10 in percent: {recalls}"


def _percent(share: float | None) -> str:
    return "" if share is None else f"{share * 100:.1f}"
