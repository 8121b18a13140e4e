"""Studies on a terminal: once, redrawn with no more lines than it has rows, or as lines of news elsewhere. No torch."""

import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.live import Live
from rich.spinner import Spinner
from rich.text import Text

from sia import command
from sia.operate.status import DAMAGED, SLURM_IS_SILENT, RunView, StudyView, run_views, slurm_is_silent
from sia.operate.status_table import count_line, counts, epoch_text, percent, views_table, way_line
from sia.progress import EVERY_SECONDS as EVERY_LINE_SECONDS
from sia.progress import Said
from sia.run.cost import in_words
from sia.run.folder import RunFolder

EVERY_SECONDS = 1.0
SOONEST = ("running", "failed", "lost", DAMAGED, "pending", "waiting", "new", "stopped", "finished")
MOST_ERRORS = MOST_RUNS = 3


def print_studies(studies: Sequence[StudyView], console: Console) -> None:
    """Of each study, who drives it, how many runs are in which state, their table, and whole lines of their errors."""
    for study in studies:
        for line in filter(None, (study.question, study.driver_line)):
            console.print(Text(line), soft_wrap=True)
        if study.runs:
            for line in filter(None, (count_line(study.runs), way_line(study))):
                console.print(Text(line), soft_wrap=True)
            console.print(views_table(study.study, study.runs))
        for line in _errors(study):
            console.print(Text(line), soft_wrap=True)


def watch_studies(
    look: Callable[[], list[StudyView]], is_over: Callable[[], bool], turning: Spinner | None = None
) -> None:
    """Show the studies anew after each wait of `is_over`, until that says so; a KeyboardInterrupt passes through."""
    if not sys.stdout.isatty():
        news = News()
        news.say(look())
        while not is_over():
            news.say(look())
        return news.say(look())
    with Live(LiveStudies(look(), turning), console=command.live_console(), auto_refresh=turning is not None) as live:
        while not is_over():
            live.update(LiveStudies(look(), turning), refresh=True)
        live.update(LiveStudies(look()))  # what stays on the screen has no spinner


class SweepDisplay:
    """Follows the runs that this process drives in a thread, between `with` and its end."""

    def __init__(self, runs: list[RunFolder]) -> None:
        self.runs = runs
        self._over = threading.Event()
        # A spinner of characters that any encoding has.
        given = (self._look, lambda: self._over.wait(EVERY_SECONDS), Spinner("line"))
        self._thread = threading.Thread(target=watch_studies, args=given, daemon=True)

    def __enter__(self) -> "SweepDisplay":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join(timeout=10)

    def _look(self) -> list[StudyView]:
        return [StudyView(self.runs[0].study if self.runs else "", None, run_views(self.runs))]


class News:
    """Says a line of each study whose driver, and of each run whose state, epoch or error is another than before; of
    what is under way, one a study every so many seconds.
    """

    def __init__(self, every_seconds: float = EVERY_LINE_SECONDS) -> None:
        self._every_seconds = every_seconds
        self._said: dict[str, object] = {}
        self._ways: dict[str, Said] = {}

    def say(self, studies: Sequence[StudyView]) -> None:
        for study in studies:
            for what, line in (("question", study.question), ("driver", study.driver_line)):
                self._say(f"{study.study} {what}", line, line)
            for run in study.runs:
                why = f": {run.error}" if run.error else ""
                line = f"{run.run}: {run.state}, stage {run.stage}{_measures(run)}{why}"
                self._say(run.folder, (run.state, run.epoch, run.error), line)
            if way := way_line(study):
                under_way = [f"{run.run} {epoch_text(run)}" for run in study.runs if run.step]
                more = [f"{len(under_way) - MOST_RUNS} more"] * (len(under_way) > MOST_RUNS)
                ways = self._ways.setdefault(study.study, Said(study.study, self._every_seconds))
                ways.tell("; ".join([way, *under_way[:MOST_RUNS], *more]))

    def _say(self, what: str, news: object, line: str) -> None:
        if line and self._said.get(what) != news:
            self._said[what] = news
            print(line, flush=True)


def _measures(run: RunView) -> str:
    if run.speech_to_image is None:
        return ""
    recalls = f"s→i {percent(run.speech_to_image)}, i→s {percent(run.image_to_speech)}"
    left = "" if run.seconds_left is None else f", {in_words(run.seconds_left / 3600)} left"
    return f", epoch {run.epoch}, {run.measured_on} R@10 in percent: {recalls}{left}"


@dataclass(frozen=True)
class LiveStudies:
    """Studies as they fit the terminal. Where not every study's table does, those under way have theirs first."""

    studies: Sequence[StudyView]
    turning: Spinner | None = None  # moves beside how far they have come, between two looks

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        notes = [_line(SLURM_IS_SILENT)] * slurm_is_silent()
        room = options.max_height - 1 - len(notes)  # the last line is the cursor's
        heights = [
            [len(console.render_lines(self._fitted(one, n), options, pad=False)) for n in (0, 1)]
            for one in self.studies
        ]
        yield from notes
        for one, rows in zip(self.studies, self._rows(room, heights), strict=True):
            yield self._fitted(one, rows)

    def _rows(self, room: int, heights: list[list[int]]) -> list[int]:
        """How many rows each study's table has; 0: no table. heights: of each study, with none and with one."""
        rows, spare = [0] * len(heights), room - sum(without for without, _ in heights)
        for place in sorted(range(len(rows)), key=lambda place: not self.studies[place].under_way):
            without, with_one = heights[place]
            if self.studies[place].runs and with_one - without <= spare:
                rows[place], spare = 1, spare - (with_one - without)
        # Each table has a fair share of the spare lines; small studies leave some of theirs to the others.
        tables = sorted((len(self.studies[place].runs), place) for place, one in enumerate(rows) if one)
        for left, (count, place) in zip(range(len(tables), 0, -1), tables, strict=True):
            more = min(spare // left, count - 1)
            spare -= more
            # The line that counts the rest would take the place of the last run.
            rows[place] = count if 1 + more == count - 1 else 1 + more
        return rows

    def _fitted(self, study: StudyView, rows: int) -> RenderableType:
        """A study with so many rows of its table; the runs without one are counted."""
        lines = (study.question, study.driver_line, count_line(study.runs) if study.runs else "")
        head: list[RenderableType] = [_line(line) for line in lines if line]
        if self.turning is not None:
            self.turning.update(text=_line(way_line(study)))
            head.append(self.turning)
        elif way := way_line(study):
            head.append(_line(way))
        if not rows:
            return Group(*head)
        ordered = study.runs
        if rows < len(study.runs):
            ordered = sorted(study.runs, key=lambda run: SOONEST.index(run.state))
        rest, errors = ordered[rows:], _errors(study)
        tail = [f"  ... and {len(rest)} more: {counts(rest)}"] * bool(rest) + errors[:MOST_ERRORS]
        if (more := len(errors) - MOST_ERRORS) > 0:
            tail.append(f"... and {more} more of such lines: python jobs/status.py {study.study}")
        table = views_table(study.study, ordered[:rows], study.runs, one_line=True)
        return Group(*head, table, *map(_line, tail))


def _errors(study: StudyView) -> list[str]:
    return [f"{run.run}: {run.error}" for run in study.runs if run.error]


def _line(text: str) -> Text:
    return Text(text, no_wrap=True, overflow="ellipsis")
