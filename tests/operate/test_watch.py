"""What a sweep shows of its runs, and of its plan."""

import io

from rich.console import Console
from written_runs import begin_run, experiment, finish_run, status_table

from sia.cluster.profile import Profile
from sia.operate.watch import SweepDisplay
from sia.sweep.grid import GridPoint
from sia.sweep.plan_table import plan_table

ON_TEST = {"training.select_on": "test"}


def cells(table):
    return {column.header: list(column.cells) for column in table.columns}


def test_recalls_are_in_percent_and_the_title_or_a_column_names_the_split(tmp_path):
    on_validation = finish_run(tmp_path, "size", experiment())
    on_test, begun = (make(tmp_path, f"size{make}", experiment(**ON_TEST)) for make in (finish_run, begin_run))
    of = "of the last epoch, and the best mean of both directions, in percent"
    assert status_table([on_validation]).title == f"size: R@10 on validation {of}"
    assert status_table([on_test]).title.endswith(f": R@10 on test (the paper's protocol) {of}")
    mixed = status_table([on_validation, begun])
    assert mixed.title == f"size: R@10 {of}"
    shown = cells(mixed)
    assert shown["on"] == ["validation", "test"]
    assert (shown["s→i"], shown["i→s"], shown["best"]) == (["47.5", ""], ["42.8", ""], ["47.5", ""])


def test_lines_name_the_split(tmp_path, capsys):
    with SweepDisplay([finish_run(tmp_path, "size", experiment(**ON_TEST))]):
        pass
    assert "epoch 5, test R@10 in percent: s→i 47.5, i→s 42.8\n" in capsys.readouterr().out


def test_what_stays_on_the_screen_has_no_spinner(tmp_path, monkeypatch):
    screen = Console(file=io.StringIO(), force_terminal=True, width=100)
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setattr("sia.command.live_console", lambda: screen)
    with SweepDisplay([finish_run(tmp_path, "size", experiment())]):
        pass
    last = screen.file.getvalue().rpartition("1 run: 1 finished")[2]
    assert "size: R@10" in last.splitlines()[1]


def test_the_plan_tells_of_the_papers_protocol(tmp_path, monkeypatch):
    monkeypatch.setenv("SIA_RUNS", str(tmp_path))
    points = [GridPoint("size", experiment(**settings)) for settings in (ON_TEST, {})]
    tables = [plan_table("size", some, [Profile()] * len(some)) for some in (points[:1], points[1:], points)]
    assert tables[0].title.endswith("\nbest epochs chosen on test (the paper's protocol)")
    assert "chosen" not in tables[1].title
    assert cells(tables[2])["settings"] == ["select_on=test", "select_on=validation"]
