import io

import pytest
from rich.console import Console
from test_tables import summary, unfinished

from sia.report.console import PROTOCOL_NOTE, SPREAD_NOTE, sweep_table


def columns(summaries):
    table = sweep_table(summaries)
    return table, {column.header: list(column.cells) for column in table.columns}


def test_sweep_table_lists_every_run():
    table, cells = columns([summary(), unfinished(summary(seed=1))])
    assert table.row_count == 2 and table.caption is None
    assert sorted(cell.split(" / ")[-1] for cell in cells["R@10\n"]) == ["45.0", "–"]
    assert cells["Speech\nparameters"] == ["11,503,808", "11,503,808"]
    assert sorted(cells["State"]) == ["finished", "unfinished"]


def test_seeds_have_a_row_of_their_mean_and_spread():
    runs = [summary(seed=seed, recall=recall) for seed, recall in enumerate((0.4, 0.5, 0.6))]
    table, cells = columns([*runs, unfinished(summary(seed=3)), summary(layers=2)])
    assert cells["Run"][4] == "mean ± spread\nof 3 seeds" and table.row_count == 6
    assert cells["R@10\n"][4] == "50.0 / 45.0\n± 10.0 / 9.0"
    assert cells["R@1\n"][4] == "5.0 / 4.5\n± 1.0 / 0.9"
    assert table.caption == SPREAD_NOTE


def test_what_chose_the_epochs_is_told_where_it_was_the_test_split():
    on_test = {"training.select_on": "test"}
    assert "chosen" not in sweep_table([summary()]).title
    table, cells = columns([summary(**on_test), summary(layers=2, **on_test)])
    assert "Best epochs chosen on test (the paper's protocol)" in table.title
    assert cells["Best\nepoch"] == ["4", "4"] and table.caption is None
    table, cells = columns([summary(), summary(layers=2, **on_test)])
    assert cells["Best\nepoch"] == ["4", "4*"] and "chosen" not in table.title
    assert table.caption == PROTOCOL_NOTE


def test_a_mixed_study_with_seeds_fits_a_terminal():
    runs = [*(summary(seed=seed) for seed in (0, 1)), summary(layers=2, **{"training.select_on": "test"})]
    console = Console(width=96, file=io.StringIO())
    console.print(sweep_table(runs))
    assert "…" not in console.file.getvalue() and "± 0.0 / 0.0" in console.file.getvalue()


def test_repeated_seeds_are_told_apart():
    _, cells = columns([summary(seed=seed) for seed in (0, 7)])
    assert cells["Seed"] == ["0", "7", ""]
    assert "Seed" not in columns([summary(), summary(layers=2)])[1]


@pytest.mark.parametrize("width", [60, 80, 100, 160])
def test_settings_are_folded_and_recalls_stay_whole(width):
    changed = [{"loss.name": name, "optimizer.learning_rate": 0.00012345} for name in ("hinge", "hinge_semihard")]
    runs = [
        summary(seed=seed, **{**one, "loss.margin": margin}) for seed in (0, 1) for one in changed for margin in (1, 2)
    ]
    console = Console(width=width, file=io.StringIO())
    console.print(sweep_table([*runs, summary(seed=5)]))
    shown = console.file.getvalue()
    assert "…" not in shown and max(map(len, shown.splitlines())) <= width
    assert all(run.name in shown for run in runs) and "50.0 / 45.0" in shown
    lines = shown.splitlines()
    place = next(line.index("Settings") for line in lines if "Settings" in line)
    settings = "".join(line[place : place + 24].partition("  ")[0] for line in lines)
    assert "learning_rate=0.00012345" in settings and "loss.name=hinge_semihard" in settings
