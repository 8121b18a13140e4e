"""Recall on a terminal: of one checkpoint, or of several side by side, and what the numbers are of, in words."""

from collections.abc import Mapping, Sequence
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


def best_first(results: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """By the mean of both directions' R@10; equal ones in their order."""
    return sorted(results, key=lambda result: -sum(result["measures"][f"{one}/R_at_10"] for one in DIRECTIONS.values()))


def comparison_table(results: Sequence[Mapping[str, Any]]) -> Table:
    """A row a run, the best first: R@10 and R@1 in percent, with their intervals."""
    table, corpora = Table(box=SIMPLE), {result["corpus"] for result in results}
    table.add_column("Run", overflow="fold")
    table.add_column("Epoch", justify="right")
    for share in ("R@10", "R@1"):
        for name in DIRECTIONS:
            table.add_column(f"{share} (%)\n{name}", justify="right", no_wrap=True)
    if len(corpora) > 1:
        table.add_column("Corpus", overflow="fold")
    for result in best_first(results):
        keys = [f"{one}/{SHARES[share]}" for share in ("R@10", "R@1") for one in DIRECTIONS.values()]
        cells = [cell(result["measures"], key, 100) for key in keys]
        table.add_row(result["run"], str(result["epoch"]), *cells, *[result["corpus"]] * (len(corpora) > 1))
    return table


def comparison_heading(results: Sequence[Mapping[str, Any]], checkpoint: str, split: str, pool: int | None) -> str:
    """What was compared: the split, the pool of each, and by which protocols the epochs were chosen."""
    captions = sorted({f"{one['num_captions']:,} captions, {pool_line(one, pool)}" for one in results})
    chosen = sorted({protocol(one["selected_on"]) for one in results})
    unlike = "; they do not compare: fewer candidates are easier" if len(captions) > 1 else ""
    return (
        f"{checkpoint} checkpoints of {len(results)} runs; best epoch chosen on: {', '.join(chosen)}\n"
        f"{split} split: {'; '.join(captions)}{unlike}"
    )


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
