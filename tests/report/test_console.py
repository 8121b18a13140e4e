import io

import pytest
from rich.console import Console
from test_tables import summary, unfinished

from sia.report.console import PROTOCOL_NOTE, SPREAD_NOTE, sweep_table

ON_TEST = {"training.select_on": "test"}


def columns(summaries):
    table = sweep_table(summaries)
    return table, {column.header: list(column.cells) for column in table.columns}


def printed(summaries, width):
    console = Console(width=width, file=io.StringIO())
    console.print(sweep_table(summaries))
    lines = console.file.getvalue().splitlines()
    assert "…" not in "".join(lines) and max(map(len, lines)) <= width
    return lines


def test_every_run_is_listed_and_seeds_have_a_row_of_their_mean_and_spread():
    runs = [summary(seed=seed, recall=recall) for seed, recall in enumerate((0.4, 0.5, 0.6))]
    table, cells = columns([*runs, unfinished(summary(seed=3)), summary(layers=2)])
    assert cells["Run"][4] == "mean ± spread\nof 3 seeds" and table.row_count == 6
    assert cells["R@10\n"][3:5] == ["–", "50.0 / 45.0\n± 10.0 / 9.0"] and cells["R@1\n"][4] == "5.0 / 4.5\n± 1.0 / 0.9"
    assert cells["Seed"] == ["0", "1", "2", "3", "", "0"] and cells["State"][3] == "unfinished"
    assert cells["Speech\nparameters"][0] == "11,503,808" and table.caption == SPREAD_NOTE
    _, cells = columns([summary(), summary(layers=2)])
    assert not {"Seed", "State", "Settings"} & cells.keys()
    assert columns([])[0].row_count == 0, "every run is damaged"


def test_what_chose_the_epochs_is_told_where_it_was_the_test_split():
    assert "chosen" not in sweep_table([summary()]).title
    table, cells = columns([summary(**ON_TEST), summary(layers=2, **ON_TEST)])
    assert "Best epochs chosen on test (the paper's protocol)" in table.title
    assert cells["Best\nepoch"] == ["4", "4"] and table.caption is None
    table, cells = columns([summary(), summary(layers=2, **ON_TEST)])
    assert cells["Best\nepoch"] == ["4", "4*"] and "chosen" not in table.title
    assert table.caption == PROTOCOL_NOTE


def test_a_mixed_study_with_seeds_fits_a_terminal():
    runs = [*(summary(seed=seed) for seed in (0, 1)), summary(layers=2, **ON_TEST)]
    assert "± 0.0 / 0.0" in "\n".join(printed(runs, 96))


@pytest.mark.parametrize("width", [60, 80, 100, 160])
def test_settings_are_folded_and_recalls_stay_whole(width):
    changed = [{"loss.name": name, "optimizer.learning_rate": 0.00012345} for name in ("hinge", "hinge_semihard")]
    runs = [
        summary(seed=seed, **{**one, "loss.margin": margin}) for seed in (0, 1) for one in changed for margin in (1, 2)
    ]
    lines = printed([*runs, summary(seed=5)], width)
    assert all(run.name in "\n".join(lines) for run in runs) and "50.0 / 45.0" in "\n".join(lines)
    place = next(line.index("Settings") for line in lines if "Settings" in line)
    settings = "".join(line[place : place + 24].partition("  ")[0] for line in lines)
    assert "learning_rate=0.00012345" in settings and "loss.name=hinge_semihard" in settings
