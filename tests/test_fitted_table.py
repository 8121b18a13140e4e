"""A table on terminals of several widths."""

import io

import pytest
from rich.console import Console

from sia.fitted_table import FittedTable

ROW = {"run": "DG2A64-0123456789", "job": "123456", "best": "47.5", "note": "learning_rate=0.003 margin=0.25"}
ROW["secret"] = "x"
TITLES = ("a title that is as long as this", "title")


def shown(width: int, leave_out: tuple[str, ...] = ("note", "job")) -> str:
    console = Console(width=width, file=io.StringIO())
    console.print(FittedTable([ROW, ROW], leave_out, TITLES, wrap=("note",), shown_if={"secret": False, "job": True}))
    text = console.file.getvalue()
    assert "secret" not in text and all(len(line) <= width for line in text.splitlines())
    return text


def test_a_wide_one_shows_all_on_one_line():
    assert "DG2A64-0123456789  123456  47.5  learning_rate=0.003 margin=0.25" in shown(100)
    assert TITLES[0] in shown(100)


def test_what_wraps_is_wrapped_first():
    lines = [line.strip() for line in shown(60).splitlines()]
    assert any(line.endswith("47.5  learning_rate=0.003") for line in lines) and "margin=0.25" in lines


@pytest.mark.parametrize(
    ("width", "leave_out", "kept"),
    [
        (50, ("note", "job"), ["run", "job", "best"]),
        (30, ("note", "job"), ["run", "best"]),
        # A wide column makes room for those that went before it.
        (40, ("job", "note"), ["run", "job", "best"]),
    ],
)
def test_then_columns_are_left_out_in_their_order(width: int, leave_out: tuple[str, ...], kept: list[str]):
    text = shown(width, leave_out)
    assert kept in [line.split() for line in text.splitlines()]
    assert ROW["run"] in text and "47.5" in text and "…" not in text


def test_the_name_is_cut_at_last_and_the_title_fits():
    assert "DG2A64-012…  47.5" in shown(20) and shown(30).splitlines()[0].strip() == "title"
