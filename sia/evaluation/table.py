"""The recall of one checkpoint on a terminal: a table, and what the numbers are of, in words."""

from collections.abc import Mapping
from typing import Any

from rich.box import SIMPLE
from rich.markup import escape
from rich.table import Table

from sia.run.selection import protocol

DIRECTIONS = {"speech→image": "speech_to_image", "image→speech": "image_to_speech"}
SHARES = {"R@1": "R_at_1", "R@5": "R_at_5", "R@10": "R_at_10"}
RANKS = {"median rank": "median_rank", "mean rank": "mean_rank"}
INTERVALS_NOTE = (
    "in brackets: 95 % bootstrap intervals; they cover only the sampling of this split, another seed may differ by more"
)


def recall_table(measures: Mapping[str, float]) -> Table:
    """A row a direction: recalls in percent, ranks from 1, intervals in brackets where there are any."""
    table = Table(box=SIMPLE)
    table.add_column("")
    for heading in (*SHARES, *RANKS):
        table.add_column(f"{heading} (%)" if heading in SHARES else heading, justify="right", no_wrap=True)
    for name, direction in DIRECTIONS.items():
        cells = [cell(measures, f"{direction}/{key}", 100) for key in SHARES.values()]
        cells += [cell(measures, f"{direction}/{key}", 1) for key in RANKS.values()]
        table.add_row(name, *cells)
    return table


def cell(measures: Mapping[str, float], key: str, scale: int) -> str:
    """'48.2', with '[45.1, 51.4]' under it where its interval was measured."""
    value = f"{measures[key] * scale:.1f}"
    if f"{key}_low" not in measures:
        return value
    low, high = (f"{measures[f'{key}_{side}'] * scale:.1f}" for side in ("low", "high"))
    return f"{value}\n{escape(f'[{low}, {high}]')}"


def heading(result: Mapping[str, Any], checkpoint: str, split: str) -> str:
    """What was measured: two lines of the run, its checkpoint, the split and the protocol."""
    return (
        f"{result['run']}, {checkpoint} checkpoint (stage {result['stage']}, epoch {result['epoch']}); "
        f"best epoch chosen on: {protocol(result['selected_on'])}\n"
        f"{split} split of {result['corpus']}: {result['num_captions']:,} captions, {result['num_images']:,} images"
    )


def pool_line(result: Mapping[str, Any], wanted: int | None) -> str:
    """The pool that was used: 'pool of 999 images: the split has no more', 'mean of 5 pools of 1,000 images'."""
    sizes, candidates = result["pool_sizes"], result["num_candidates"]
    if len(sizes) > 1:
        last = f", the last of {sizes[-1]:,}" if sizes[-1] < sizes[0] else ""
        return f"mean of {len(sizes)} pools of {sizes[0]:,} images{last}"
    line = f"pool of {sizes[0]:,} images"
    if wanted is not None and wanted > candidates:
        return f"{line}: the split has no more"
    return f"{line} of {candidates:,}" if sizes[0] < candidates else line
