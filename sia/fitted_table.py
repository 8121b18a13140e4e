"""A table that leaves whole columns out where the terminal is too narrow, instead of cutting their cells."""

from collections.abc import Collection, Mapping, Sequence
from copy import copy
from dataclasses import replace

from rich.box import SIMPLE
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, JustifyMethod, RenderResult
from rich.table import Column, Table

from sia import command

NARROWEST = 10
LONGEST_WORD = 24  # a longer one is folded


class FittedTable(Table):
    """A table of texts. Columns that wrap are made narrower, then those of `leave_out` go, the first one first. Where
    the rest is too wide still, its words are folded, then its first column, the name, is cut.

    rows: by their headings, the same in all. titles: the longest that is no wider than the table is shown, else the
    last one. wrap, right: headings of columns that may wrap, that stand on the right. shown_if: of columns that are not
    always shown, whether they are.
    """

    def __init__(
        self,
        rows: Sequence[Mapping[str, str]],
        leave_out: Sequence[str] = (),
        titles: Sequence[str] = (),
        *,
        wrap: Collection[str] = (),
        right: Collection[str] = (),
        shown_if: Mapping[str, bool] | None = None,
    ) -> None:
        # Every column is padded alike, so that any of them can be left out.
        super().__init__(box=SIMPLE, padding=(0, 1, 0, 0), title=titles[0] if titles else None)
        self.leave_out, self.titles = leave_out, titles
        headings = [heading for heading in (rows[0] if rows else ()) if (shown_if or {}).get(heading, True)]
        for heading in headings:
            justify: JustifyMethod = "right" if heading in right else "left"
            self.add_column(heading, justify=justify, no_wrap=heading not in wrap, overflow="fold")
        for row in rows:
            self.add_row(*(row[heading] for heading in headings))

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        width = min(options.max_width, command.width())
        shown = copy(self)
        shown.columns = self._fitting(width)
        if self.titles:
            widest = min(width, _width(shown.columns, whole=True))
            shown.title = next((one for one in self.titles if _longest_line(one) <= widest), self.titles[-1])
            shown.min_width = min(width, _longest_line(shown.title))
        return Table.__rich_console__(shown, console, options.update(max_width=width))

    def _fitting(self, width: int) -> list[Column]:
        gone: list[str] = []
        for header in self.leave_out:
            if _width(self._without(gone)) > width:
                gone.append(header)
        for header in reversed(gone):
            # A wide column that went after narrow ones may have made room for some of them.
            kept = [other for other in gone if other != header]
            gone = kept if _width(self._without(kept)) <= width else gone
        return _sized(self._without(gone), width)

    def _without(self, headers: Sequence[str]) -> list[Column]:
        return [column for column in self.columns if column.header not in headers]


def _sized(columns: list[Column], width: int) -> list[Column]:
    """Columns that wrap with what is left of the width, the first one first, or folded; the name cut where that is not
    enough.
    """
    spare, sized = width - _width(columns), []
    for column in columns:
        least = _least(column)
        width = least if column.no_wrap else max(min(NARROWEST, least), min(_natural(column), least + spare))
        spare -= width - least
        sized.append(replace(column, width=width))
    if spare < 0:
        sized[0] = replace(sized[0], width=max(NARROWEST, _least(sized[0]) + spare), overflow="ellipsis")
    return sized


def _width(columns: Sequence[Column], whole: bool = False) -> int:
    """Of a table of these columns: at the least, or with nothing wrapped; a blank at each edge, two between columns."""
    return sum((_natural(one) if whole else _least(one)) + 2 for one in columns) + 1


def _natural(column: Column) -> int:
    return max(_longest_line(str(cell)) for cell in (column.header, *column.cells))


def _least(column: Column) -> int:
    if column.no_wrap:
        return _natural(column)
    words = [word for cell in (column.header, *column.cells) for word in str(cell).split()]
    return min(LONGEST_WORD, max((cell_len(word) for word in words), default=1))


def _longest_line(text: str) -> int:
    return max(map(cell_len, text.split("\n")))
