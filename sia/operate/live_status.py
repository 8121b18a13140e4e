"""Studies on a terminal that is redrawn: no more lines than it has rows, what is under way first."""

from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.text import Text

from sia.operate.status import DAMAGED, SLURM_IS_SILENT, RunView, slurm_is_silent
from sia.operate.status_table import count_line, counts, views_table

SOONEST = ("running", "failed", "lost", DAMAGED, "pending", "waiting", "new", "stopped", "finished")
MOST_ERRORS = 3


@dataclass(frozen=True)
class Shown:
    """A study, its runs, and who drives it; nothing of the driver where this process is it."""

    study: str
    runs: Sequence[RunView]
    driver_line: str = ""
    driven: bool = True

    @property
    def under_way(self) -> bool:
        return self.driven or any(run.state in ("running", "pending") for run in self.runs)

    def lines(self, rows: int) -> RenderableType:
        """So many rows of the table; the runs without one are counted."""
        head = [self.driver_line] * bool(self.driver_line) + [count_line(self.runs)] * bool(self.runs)
        if not rows:
            return Group(*map(_line, head))
        folded = rows < len(self.runs)
        ordered = sorted(self.runs, key=lambda run: SOONEST.index(run.state)) if folded else self.runs
        rest = ordered[rows:]
        more = [f"  ... and {len(rest)} more: {counts(rest)}"] * bool(rest)
        table = views_table(self.study, ordered[:rows], self.runs, one_line=True)
        return Group(*map(_line, head), table, *map(_line, [*more, *self._errors()]))

    def _errors(self) -> list[str]:
        found = [f"{run.run}: {run.error}" for run in self.runs if run.error]
        more = len(found) - MOST_ERRORS
        told = f"... and {more} more of such lines: python jobs/status.py {self.study}"
        return [*found[:MOST_ERRORS], *[told] * (more > 0)]


@dataclass(frozen=True)
class LiveRuns:
    """Studies as they fit the terminal. Where not every study's table does, those under way have theirs first."""

    studies: Sequence[Shown]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        notes = [_line(SLURM_IS_SILENT)] * slurm_is_silent()
        room = options.max_height - 1 - len(notes)  # the last line is the cursor's
        heights = [
            [len(console.render_lines(one.lines(n), options, pad=False)) for n in (0, 1)] for one in self.studies
        ]
        yield from notes
        for one, rows in zip(self.studies, self._rows(room, heights), strict=True):
            yield one.lines(rows)

    def _rows(self, room: int, heights: list[list[int]]) -> list[int]:
        """How many rows each study's table has; 0: no table. heights: of each study, with none and with one."""
        rows, spare = [0] * len(heights), room - sum(without for without, _ in heights)
        for place in sorted(range(len(rows)), key=lambda place: not self.studies[place].under_way):
            without, with_one = heights[place]
            if self.studies[place].runs and with_one - without <= spare:
                rows[place], spare = 1, spare - (with_one - without)
        return self._shared(rows, spare)

    def _shared(self, rows: list[int], spare: int) -> list[int]:
        """Each table with a fair share of the spare lines; small studies leave some of theirs to the others."""
        tables = sorted((len(self.studies[place].runs), place) for place, one in enumerate(rows) if one)
        for left, (count, place) in zip(range(len(tables), 0, -1), tables, strict=True):
            more = min(spare // left, count - 1)
            spare -= more
            # The line that counts the rest would take the place of the last run.
            rows[place] = count if 1 + more == count - 1 else 1 + more
        return rows


def _line(text: str) -> Text:
    return Text(text, no_wrap=True, overflow="ellipsis")
