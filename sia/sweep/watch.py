"""What a sweep shows while it runs, read from the run folders: a live table on a terminal, plain lines elsewhere."""

import sys
import threading
from typing import Any

from rich.box import SIMPLE
from rich.live import Live
from rich.table import Table

from sia.cluster.state import look
from sia.run_folder import RunFolder
from sia.tracking.metrics_log import Row, read_rows
from sia.training.selection import protocol, selected_on, selecting_recalls, selection_value

EVERY_SECONDS = 1.0
HEADINGS = {
    **{"run": "run", "state": "state", "stage": "stage", "epoch": "epoch", "job": "job"},
    **{"s→i": "speech_to_image", "i→s": "image_to_speech", "best": "best"},
}
MIXED = {"on": "measured_on"}


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
        said: dict[str, tuple[str, int]] = {}
        while not self._over.wait(EVERY_SECONDS):
            self._say_news(said)
        self._say_news(said)

    def _say_news(self, said: dict[str, tuple[str, int]]) -> None:
        for run in self.runs:
            status, row = look(run), last_epoch(run)
            news = (status.state.value, row["epoch"] if row else 0)
            if said.get(run.name) != news:
                said[run.name] = news
                print(f"{run.name}: {status.state.value}, stage {status.stage}{_measures(row)}", flush=True)


def status_table(runs: list[RunFolder]) -> Table:
    """A row a run: state, stage, epoch, job, R@10 of the last epoch, the best mean of both directions (percent).

    The title names the split that they are of; where runs differ in it, a column does.
    """
    rows = [status_cells(run) for run in runs]
    splits = {row["measured_on"] for row in rows}
    table = Table(title=_title(runs[0].study, splits) if runs else None, box=SIMPLE)
    headings = HEADINGS if len(splits) < 2 else {**HEADINGS, **MIXED}
    for heading in headings:
        table.add_column(heading, no_wrap=True)
    for row in rows:
        table.add_row(*(row[key] for key in headings.values()))
    errors = [f"{row['run']}: {row['error']}" for row in rows if row["error"]]
    table.caption = "\n".join(errors) or None
    return table


def _title(study: str, splits: set[str]) -> str:
    where = f" on {protocol(*splits)}" if len(splits) == 1 else ""
    return f"{study}: R@10{where} of the last epoch, and the best mean of both directions, in percent"


def status_cells(run: RunFolder) -> dict[str, str]:
    """What status tells of a run, as text."""
    status = look(run)
    rows = [row for row in read_rows(run.metrics) if "stage_epoch" in row]
    last: dict[str, Any] = rows[-1] if rows else {}
    planned = run.planned_stages()
    epochs = sum(stage.epochs for stage in planned)
    speech_to_image, image_to_speech = selecting_recalls(last) if last else (None, None)
    return {
        "run": run.name,
        "state": status.state.value,
        "stage": f"{status.stage}/{len(planned)}",
        "epoch": f"{last.get('epoch', 0)}/{epochs}",
        "job": status.job_id,
        "speech_to_image": _percent(speech_to_image),
        "image_to_speech": _percent(image_to_speech),
        "best": _percent(max((selection_value(row) for row in rows), default=None)),
        "measured_on": selected_on(last) if last else run.experiment().training.select_on,
        "error": status.error,
    }


def last_epoch(run: RunFolder) -> Row | None:
    rows = [row for row in read_rows(run.metrics) if "stage_epoch" in row]
    return rows[-1] if rows else None


def _measures(row: Row | None) -> str:
    if row is None:
        return ""
    speech_to_image, image_to_speech = (_percent(value) for value in selecting_recalls(row))
    return f", epoch {row['epoch']}, {selected_on(row)} R@10 in percent: s→i {speech_to_image}, i→s {image_to_speech}"


def _percent(share: float | None) -> str:
    return "" if share is None else f"{share * 100:.1f}"
