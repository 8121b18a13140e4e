"""The table that ends a sweep, on the terminal."""

from rich.table import Table

from sia.report.groups import grouped
from sia.report.summary import RunSummary
from sia.report.tables import NONE_YET, duration

COLUMNS = (
    *("Run", "Seed", "Speech parameters", "Image parameters", "Best epoch", "R@10 speech→image", "R@10 image→speech"),
    *("R@1 speech→image", "R@1 image→speech", "Wall time", "State"),
)
MEASURES = (
    *("speech_to_image/R_at_10", "image_to_speech/R_at_10"),
    *("speech_to_image/R_at_1", "image_to_speech/R_at_1"),
)


def sweep_table(summaries: list[RunSummary]) -> Table:
    """A row a run, finished or not; recalls of the test split in percent."""
    table = Table(title="Recall on the test split (%)")
    for index, column in enumerate(COLUMNS):
        text_column = index == 0 or column == "State"
        table.add_column(column, justify="left" if text_column else "right", no_wrap=index == 0)
    for group in grouped(summaries):
        for run in group.runs:
            table.add_row(*_cells(run))
    return table


def _cells(run: RunSummary) -> list[str]:
    sizes = [f"{run.speech_parameters:,}", f"{run.image_parameters:,}"]
    best = NONE_YET if run.best_epoch is None else str(run.best_epoch)
    recalls = [f"{run.test[measure] * 100:.1f}" if measure in run.test else NONE_YET for measure in MEASURES]
    return [run.name, str(run.seed), *sizes, best, *recalls, duration(run.seconds), run.state]
