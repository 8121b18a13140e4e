"""The table that ends a sweep, on the terminal."""

from rich.console import JustifyMethod

from sia.report.fitted_table import FittedTable
from sia.report.groups import Group, grouped
from sia.report.settings import in_short
from sia.report.summary import RunSummary
from sia.report.tables import NONE_YET, both_directions, duration
from sia.run.selection import protocol

COLUMNS = ("Run", "Speech\nparameters", "Image\nparameters", "Best\nepoch", "R@10\n", "R@1\n", "Wall\ntime")
LEFT_OUT = ("Image\nparameters", "Speech\nparameters", "Wall\ntime", "R@1\n", "State")  # first ones first
TEXTS = ("Run", "Settings", "State")
SPREAD_NOTE = "±: the sample standard deviation over seeds"
PROTOCOL_NOTE = f"*: best epoch chosen on {protocol('test')}"


def sweep_table(summaries: list[RunSummary]) -> FittedTable:
    """A row a run, finished or not; recalls of the test split in percent, of the pool that the title names.

    A configuration with several finished seeds has a row of their mean and spread too. Where epochs were chosen on
    test, the title says so, or in a mixed study a star beside them.
    """
    groups = grouped(summaries)
    mixed, unfinished = len(_splits(summaries)) > 1, any(not run.finished for run in summaries)
    table = FittedTable(LEFT_OUT, [_title(summaries)])
    notes = [SPREAD_NOTE] * any(len(group.finished) > 1 for group in groups) + [PROTOCOL_NOTE] * mixed
    table.caption = "\n".join(notes) or None
    told = any(group.settings for group in groups)
    repeated = any(len(group.runs) > 1 for group in groups)
    extra = [*(["Seed"] if repeated else []), *(["Settings"] if told else []), *(["State"] if unfinished else [])]
    for column in (*COLUMNS, *extra):
        justify: JustifyMethod = "left" if column in TEXTS else "right"
        table.add_column(column, justify=justify, no_wrap=column != "Settings", overflow="fold")
    for group, settings in zip(groups, _settings(groups), strict=True):
        for run in group.runs:
            cells = {"Seed": str(run.seed), "Settings": settings, "State": run.state}
            table.add_row(*_cells(run, mixed), *(cells[column] for column in extra))
        if len(group.finished) > 1:
            table.add_row(*_mean_cells(group))
    return table


def _settings(groups: list[Group]) -> list[str]:
    """A line each, with short keys."""
    values = [dict(one.split("=", 1) for one in group.settings) for group in groups]
    return ["\n".join(one) for one in in_short(values, told_elsewhere=())]


def _splits(summaries: list[RunSummary]) -> set[str]:
    return {run.selected_on for run in summaries}


def _title(summaries: list[RunSummary]) -> str:
    pools = {(run.num_test_captions, run.num_test_images) for run in summaries if run.test}
    pool = ", ".join(f"{captions} captions, {images} images" for captions, images in sorted(pools))
    lines = [f"Test split ({pool or 'not measured yet'})"]
    if _splits(summaries) == {"test"}:
        lines.append(f"Best epochs chosen on {protocol('test')}")
    return "\n".join([*lines, "R@10 and R@1 in percent: speech→image / image→speech"])


def _cells(run: RunSummary, mixed: bool) -> list[str]:
    sizes = [f"{run.speech_parameters:,}", f"{run.image_parameters:,}"]
    star = "*" if mixed and run.selected_on == "test" else ""
    best = NONE_YET if run.best_epoch is None else f"{run.best_epoch}{star}"
    recalls = [both_directions(run, measure) for measure in ("R_at_10", "R_at_1")]
    return [run.name, *sizes, best, *recalls, duration(run.seconds)]


def _mean_cells(group: Group) -> list[str]:
    recalls = [_mean_and_spread(group, measure) for measure in ("R_at_10", "R_at_1")]
    return [f"mean ± spread\nof {len(group.finished)} seeds", "", "", "", *recalls, ""]


def _mean_and_spread(group: Group, measure: str) -> str:
    """The means of both directions, and under them their spread: a line of both is too wide for a terminal."""
    spreads = [group.spread(f"{direction}/{measure}") for direction in ("speech_to_image", "image_to_speech")]
    means = " / ".join(f"{spread.mean * 100:.1f}" for spread in spreads if spread)
    return f"{means}\n± " + " / ".join(f"{(spread.deviation or 0) * 100:.1f}" for spread in spreads if spread)
