"""The rows of a run, which outlive damage to metrics.jsonl: done.json holds those of its stage. It loads no torch."""

import sys
from functools import lru_cache

from sia.run.folder import RunFolder
from sia.run.metrics import Row, read_sound_rows, write_rows
from sia.run.records import Finished, StageDone


def rows_of(run: RunFolder) -> list[Row]:
    """All rows. Where metrics.jsonl is damaged, a warning says so, and stages that are done have theirs on record.

    Of the stage under way those before the damage are left; its job writes the rest anew from its checkpoint.
    """
    rows, fault = sound_rows(run)
    if fault:
        _warn(fault)
    return rows


def mend_rows(run: RunFolder) -> str:
    """Write a damaged metrics.jsonl anew, as `rows_of` tells it; what was wrong with it, or nothing."""
    rows, fault = sound_rows(run)
    if fault:
        write_rows(run.metrics, rows)
    return fault


def sound_rows(run: RunFolder) -> tuple[list[Row], str]:
    """The rows, as `rows_of` gives them, and what is wrong with metrics.jsonl, or nothing."""
    found = read_sound_rows(run.metrics)
    fault = found.fault or _loss(run, found.rows)
    return (_on_record(run, found.rows), fault) if fault else (found.rows, "")


def _loss(run: RunFolder, rows: list[Row]) -> str:
    """What is missing at the end of a file whose lines follow each other."""
    for number, settings in enumerate(run.planned_stages(), start=1):
        held = sum(row.get("stage") == number and "stage_epoch" in row for row in rows)
        if held < settings.epochs and run.stage(number).done.exists():
            return f"{run.metrics}: {held} of {settings.epochs} rows of stage {number} are there"
    if run.finished.exists() and all("stage_epoch" in row for row in rows):
        return f"{run.metrics}: the row of the test split is missing"
    return ""


def _on_record(run: RunFolder, found: list[Row]) -> list[Row]:
    rows: list[Row] = []
    finished = Finished.read_sound(run.finished)
    for number in range(1, len(run.planned_stages()) + 1):
        done = StageDone.read_sound(run.stage(number).done)
        own = [row for row in found if row["stage"] == number]
        tests = [row for row in own if "stage_epoch" not in row]
        rows += [row for row in own if "stage_epoch" in row] if done is None else done.rows
        # Where a restart was added by hand, the test row of the stages before it stays.
        rows += [finished.row] if finished is not None and finished.num_stages == number else tests
    return rows


@lru_cache(maxsize=1000)
def _warn(fault: str) -> None:
    print(f"warning: {fault}", file=sys.stderr, flush=True)
