"""A table on terminals of several widths."""

import io

import pytest
from rich.console import Console

from sia.report.fitted_table import FittedTable


def table() -> FittedTable:
    made = FittedTable(("note", "job"), ("a title that is as long as this", "title"))
    for heading in ("run", "job", "best"):
        made.add_column(heading, no_wrap=True)
    made.add_column("note", overflow="fold")
    made.add_row("DG2A64-0123456789", "123456", "47.5", "learning_rate=0.003 margin=0.25")
    return made


def shown(width: int) -> str:
    console = Console(width=width, file=io.StringIO())
    console.print(table())
    text = console.file.getvalue()
    assert all(len(line) <= width for line in text.splitlines())
    return text


def test_a_wide_one_shows_all_on_one_line():
    assert "DG2A64-0123456789  123456  47.5  learning_rate=0.003 margin=0.25" in shown(100)
    assert "a title that is as long as this" in shown(100)


def test_what_wraps_is_wrapped_first():
    lines = shown(60).splitlines()
    assert any(line.rstrip().endswith("47.5  learning_rate=0.003") for line in lines)
    assert any(line.strip() == "margin=0.25" for line in lines)


@pytest.mark.parametrize(("width", "kept"), [(50, ["run", "job", "best"]), (30, ["run", "best"])])
def test_then_columns_are_left_out_in_their_order(width: int, kept: list[str]):
    text = shown(width)
    assert kept in [line.split() for line in text.splitlines()]
    assert "DG2A64-0123456789" in text and "47.5" in text and "…" not in text


def test_a_wide_column_makes_room_for_those_that_went_before_it():
    narrow_first = table()
    narrow_first.leave_out = ("job", "note")
    console = Console(width=40, file=io.StringIO())
    console.print(narrow_first)
    assert "123456" in console.file.getvalue() and "note" not in console.file.getvalue()


def test_the_name_is_cut_at_last():
    assert "DG2A64-012…  47.5" in shown(20)


def test_a_title_that_fits():
    assert "\n" + shown(30).splitlines()[0].strip() == "\ntitle"
