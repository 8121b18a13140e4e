"""The table that ends a sweep, on the terminal."""

from rich.box import SIMPLE
from rich.table import Table

from sia.report.groups import grouped
from sia.report.summary import RunSummary
from sia.report.tables import NONE_YET, both_directions, duration

COLUMNS = ("Run", "Speech\nparameters", "Image\nparameters", "Best\nepoch", "R@10\n", "R@1\n", "Wall\ntime")


def sweep_table(summaries: list[RunSummary]) -> Table:
    """A row a run, finished or not; recalls of the test split in percent, of the pool that the title names."""
    pools = {(run.num_test_captions, run.num_test_images) for run in summaries if run.test}
    pool = ", ".join(f"{captions} captions, {images} images" for captions, images in sorted(pools))
    title = f"Test split ({pool or 'not measured yet'})\nR@10 and R@1 in percent: speech→image / image→speech"
    table = Table(title=title, box=SIMPLE, padding=(0, 1, 0, 0), pad_edge=False)
    unfinished = any(run.state != "finished" for run in summaries)
    for column in (*COLUMNS, *(["State"] if unfinished else [])):
        table.add_column(column, justify="left" if column in ("Run", "State") else "right", no_wrap=True)
    for group in grouped(summaries):
        for run in group.runs:
            table.add_row(*_cells(run), *([run.state] if unfinished else []))
    return table


def _cells(run: RunSummary) -> list[str]:
    sizes = [f"{run.speech_parameters:,}", f"{run.image_parameters:,}"]
    best = NONE_YET if run.best_epoch is None else str(run.best_epoch)
    recalls = [both_directions(run, measure) for measure in ("R_at_10", "R_at_1")]
    return [run.name, *sizes, best, *recalls, duration(run.seconds)]
