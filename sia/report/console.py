"""The table that ends a sweep, on the terminal."""

from sia.fitted_table import FittedTable
from sia.report.differences import in_short
from sia.report.groups import Group, grouped
from sia.report.summary import RunSummary
from sia.report.tables import NONE_YET, both_directions, duration
from sia.run.selection import DIRECTIONS, protocol

LEFT_OUT = ("Image\nparameters", "Speech\nparameters", "Wall\ntime", "R@1\n", "State")  # first ones first
NUMBERS = ("Speech\nparameters", "Image\nparameters", "Best\nepoch", "R@10\n", "R@1\n", "Wall\ntime", "Seed")
RECALLS = {"R@10\n": "R_at_10", "R@1\n": "R_at_1"}
SPREAD_NOTE = "±: the sample standard deviation over seeds"
PROTOCOL_NOTE = f"*: best epoch chosen on {protocol('test')}"


def sweep_table(summaries: list[RunSummary]) -> FittedTable:
    """A row a run, finished or not; recalls of the test split in percent, of the pool that the title names.

    A configuration with several finished seeds has a row of their mean and spread too. Where epochs were chosen on
    test, the title says so, or in a mixed study a star beside them.
    """
    groups, mixed = grouped(summaries), len({run.selected_on for run in summaries}) > 1
    short = in_short([group.settings for group in groups])
    rows = []
    for group, settings in zip(groups, short, strict=True):
        of_runs = [_row(run, "*" * mixed, "\n".join(settings)) for run in group.runs]
        rows += of_runs + [_mean_row(group, of_runs[0])] * (len(group.finished) > 1)
    shown_if = {
        "Seed": any(len(group.runs) > 1 for group in groups),
        "Settings": any(short),
        "State": any(not run.finished for run in summaries),
    }
    titles = [_title(summaries)]
    table = FittedTable(rows, LEFT_OUT, titles, wrap=("Settings",), right=NUMBERS, shown_if=shown_if)
    notes = [SPREAD_NOTE] * any(len(group.finished) > 1 for group in groups) + [PROTOCOL_NOTE] * mixed
    table.caption = "\n".join(notes) or None
    return table


def _title(summaries: list[RunSummary]) -> str:
    pools = {(run.num_test_captions, run.num_test_images) for run in summaries if run.test}
    pool = ", ".join(f"{captions} captions, {images} images" for captions, images in sorted(pools))
    lines = [f"Test split ({pool or 'not measured yet'})"]
    if {run.selected_on for run in summaries} == {"test"}:
        lines.append(f"Best epochs chosen on {protocol('test')}")
    return "\n".join([*lines, "R@10 and R@1 in percent: speech→image / image→speech"])


def _row(run: RunSummary, star: str, settings: str) -> dict[str, str]:
    """`star` marks an epoch that was chosen on test."""
    best = NONE_YET if run.best_epoch is None else f"{run.best_epoch}{star if run.selected_on == 'test' else ''}"
    return {
        "Run": run.name,
        "Speech\nparameters": f"{run.speech_parameters:,}",
        "Image\nparameters": f"{run.image_parameters:,}",
        "Best\nepoch": best,
        **{heading: both_directions(run.test, measure) for heading, measure in RECALLS.items()},
        "Wall\ntime": duration(run.seconds),
        "Seed": str(run.seed),
        "Settings": settings,
        "State": run.state,
    }


def _mean_row(group: Group, headings: dict[str, str]) -> dict[str, str]:
    """The means of both directions, and under them their spread: a line of both is too wide for a terminal."""
    row = {**dict.fromkeys(headings, ""), "Run": f"mean ± spread\nof {len(group.finished)} seeds"}
    for heading, measure in RECALLS.items():
        spreads = [spread for one in DIRECTIONS if (spread := group.spread(f"{one}/{measure}"))]
        means = " / ".join(f"{spread.mean * 100:.1f}" for spread in spreads)
        row[heading] = f"{means}\n± " + " / ".join(f"{(spread.deviation or 0) * 100:.1f}" for spread in spreads)
    return row
