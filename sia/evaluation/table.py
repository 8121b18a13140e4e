"""Recall on a terminal: of one checkpoint, or of several side by side, and what the numbers are of, in words."""

from collections.abc import Mapping, Sequence
from typing import Any

from sia.fitted_table import FittedTable
from sia.run.selection import protocol

DIRECTIONS = {"speech→image": "speech_to_image", "image→speech": "image_to_speech"}
SHARES = {"R@1": "R_at_1", "R@5": "R_at_5", "R@10": "R_at_10"}
RANKS = {"median rank": "median_rank", "mean rank": "mean_rank"}
INTERVALS_NOTE = (
    "in brackets: 95 % bootstrap intervals; they cover only the sampling of this split, another seed may differ by more"
)


def recall_table(measures: Mapping[str, float]) -> FittedTable:
    """A row a measure: recalls in percent, ranks from 1, intervals in brackets where there are any."""
    told = [(f"{name} (%)", key, 100) for name, key in SHARES.items()]
    told += [(name, key, 1) for name, key in RANKS.items()]
    rows = [
        {"": name, **{way: cell(measures, f"{one}/{key}", scale, " ") for way, one in DIRECTIONS.items()}}
        for name, key, scale in told
    ]
    return FittedTable(rows, right=list(DIRECTIONS))


def best_first(results: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """By the mean of both directions' R@10; equal ones in their order."""
    return sorted(results, key=lambda result: -sum(result["measures"][f"{one}/R_at_10"] for one in DIRECTIONS.values()))


def comparison_table(results: Sequence[Mapping[str, Any]]) -> FittedTable:
    """A row a run, the best first: R@10 and R@1 in percent, with their intervals; on a narrow terminal not R@1."""
    shares = {
        f"{share} (%)\n{name}": f"{direction}/{SHARES[share]}"
        for share in ("R@10", "R@1")
        for name, direction in DIRECTIONS.items()
    }
    rows = [
        {
            "Run": result["run"],
            "Epoch": str(result["epoch"]),
            **{heading: cell(result["measures"], key, 100) for heading, key in shares.items()},
            "Corpus": result["corpus"],
        }
        for result in best_first(results)
    ]
    shown_if = {"Corpus": len({result["corpus"] for result in results}) > 1}
    leave_out = (*reversed([*shares][2:]), "Epoch", "Corpus")
    return FittedTable(rows, leave_out, wrap=("Corpus",), right=("Epoch", *shares), shown_if=shown_if)


def comparison_heading(results: Sequence[Mapping[str, Any]], checkpoint: str, split: str, pool: int | None) -> str:
    """What was compared: the split, the pool of each, and by which protocols the epochs were chosen."""
    captions = sorted({f"{one['num_captions']:,} captions, {pool_line(one, pool)}" for one in results})
    chosen = sorted({protocol(one["selected_on"]) for one in results})
    unlike = "; they do not compare: fewer candidates are easier" if len(captions) > 1 else ""
    return (
        f"{checkpoint} checkpoints of {len(results)} runs; best epoch chosen on: {', '.join(chosen)}\n"
        f"{split} split: {'; '.join(captions)}{unlike}"
    )


def cell(measures: Mapping[str, float], key: str, scale: int, between: str = "\n") -> str:
    """'48.2', with '[45.1, 51.4]' under or beside it where its interval was measured."""
    value = f"{measures[key] * scale:.1f}"
    if f"{key}_low" not in measures:
        return value
    low, high = (f"{measures[f'{key}_{side}'] * scale:.1f}" for side in ("low", "high"))
    return f"{value}{between}[{low}, {high}]"


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
