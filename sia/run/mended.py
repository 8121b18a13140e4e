"""What of a damaged run folder the rest of it gives again: its rows, done.json holding those of its stage, its records.

It loads no torch.
"""

import sys
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

from sia.errors import UserError
from sia.run.folder import RunFolder
from sia.run.lock import living_holder
from sia.run.records import Finished, OfAnotherVersion, Record, StageDone, StagePlan
from sia.run.row_files import Row, read_sound_rows, write_rows
from sia.run.selection import selection_value


def rows_of(run: RunFolder) -> list[Row]:
    """All rows. Where metrics.jsonl is damaged, a warning says so, and stages that are done have theirs on record.

    Of the stage under way those before the damage are left; its job writes the rest anew from its checkpoint.
    """
    rows, fault = sound_rows(run)
    if fault:
        _warn(fault)
    return rows


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


def mend(run: RunFolder) -> list[str]:
    """Mend the run's records and rows, unless a job has the run: it mends them itself; a line on each that was damaged.

    A marker of what is done goes: who does it again finds it done, and writes the marker anew. Raises UserError for
    damage that only a person can answer, and for what another version of the program wrote.
    """
    if living_holder(run.lock) is not None:
        return []
    lines = []
    for path in list(_damaged_markers(run)):
        path.unlink()
        lines.append(f"{path}: damaged; it is written anew")
    rows, fault = sound_rows(run)
    if fault:
        write_rows(run.metrics, rows)
        lines.append(f"{fault.partition(';')[0]}; its rows are written anew from the records of its stages")
    if run.finished.exists():
        _complete_records(run, rows)
    jobs = read_sound_rows(run.provenance)
    if jobs.fault:
        write_rows(run.provenance, jobs.rows)
        lines.append(f"{jobs.fault.partition(';')[0]}; the jobs before that line are kept")
    return lines


def _complete_records(run: RunFolder, rows: list[Row]) -> None:
    """Nobody trains a finished run again: where done.json of a stage is missing, its rows tell what it held."""
    for number in range(1, len(run.planned_stages()) + 1):
        own = [row for row in rows if row["stage"] == number and "stage_epoch" in row]
        if own and not run.stage(number).done.exists():
            best = max(own, key=selection_value)
            StageDone(
                best_epoch=best["epoch"],
                best_value=selection_value(best),
                seconds=sum(row["train/seconds"] for row in own),
                epochs=len(own),
                rows=own,
            ).write(run.stage(number).done)


def _damaged_markers(run: RunFolder) -> Iterator[Path]:
    """Of a restart that was added by hand the plan is none: nothing else tells what it was to be."""
    markers: list[tuple[type[Record], Path]] = [(Finished, run.finished)]
    for number in range(1, len(run.experiment().stages) + 1):
        markers += [(StagePlan, run.stage(number).plan), (StageDone, run.stage(number).done)]
    for kind, path in markers:
        try:
            kind.read(path)
        except OfAnotherVersion:
            raise
        except UserError:
            yield path
