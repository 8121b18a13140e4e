"""The table that ends a sweep, on the terminal."""

from rich.box import SIMPLE
from rich.table import Table

from sia.report.groups import Group, grouped
from sia.report.summary import RunSummary
from sia.report.tables import NONE_YET, both_directions, duration
from sia.training.selection import protocol

COLUMNS = ("Run", "Speech\nparameters", "Image\nparameters", "Best\nepoch", "R@10\n", "R@1\n", "Wall\ntime")
TEXTS = ("Run", "Settings", "State")
SPREAD_NOTE = "±: the sample standard deviation over seeds"
PROTOCOL_NOTE = f"*: best epoch chosen on {protocol('test')}"


def sweep_table(summaries: list[RunSummary]) -> Table:
    """A row a run, finished or not; recalls of the test split in percent, of the pool that the title names.

    A configuration with several finished seeds has a row of their mean and spread too. Where epochs were chosen on
    test, the title says so, or in a mixed study a star beside them.
    """
    groups = grouped(summaries)
    mixed, unfinished = len(_splits(summaries)) > 1, any(not run.finished for run in summaries)
    table = Table(title=_title(summaries), box=SIMPLE, padding=(0, 1, 0, 0), pad_edge=False)
    notes = [SPREAD_NOTE] * any(len(group.finished) > 1 for group in groups) + [PROTOCOL_NOTE] * mixed
    table.caption = "\n".join(notes) or None
    told = any(group.settings for group in groups)
    for column in (*COLUMNS, *(["Settings"] if told else []), *(["State"] if unfinished else [])):
        table.add_column(column, justify="left" if column in TEXTS else "right", no_wrap=column != "Settings")
    for group in groups:
        settings = ["\n".join(group.settings)] if told else []
        for run in group.runs:
            table.add_row(*_cells(run, mixed), *settings, *([run.state] if unfinished else []))
        if len(group.finished) > 1:
            table.add_row(*_mean_cells(group))
    return table


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
