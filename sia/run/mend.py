"""What of a damaged run folder is derived again from the rest of it, before the run is gone on with. No torch."""

from collections.abc import Iterator
from pathlib import Path

from sia.run.folder import RunFolder
from sia.run.lock import holder_of, is_alive
from sia.run.metrics import read_sound_rows, write_rows
from sia.run.records import Finished, Record, StageDone, StagePlan
from sia.run.rows import mend_rows, rows_of
from sia.run.selection import selection_value


def mend(run: RunFolder) -> list[str]:
    """Mend the run's records and rows, unless a job has the run: it mends them itself; a line on each that was damaged.

    A marker of what is done goes: who does it again finds it done, and writes the marker anew. Raises UserError for
    damage that only a person can answer.
    """
    holder = holder_of(run.lock)
    if holder is not None and is_alive(run.lock, holder):
        return []
    lines = []
    for path in _damaged_markers(run):
        path.unlink()
        lines.append(f"{path}: damaged; it is written anew")
    if fault := mend_rows(run):
        lines.append(f"{fault.partition(';')[0]}; its rows are written anew from the records of its stages")
    if run.finished.exists():
        _complete_records(run)
    jobs = read_sound_rows(run.provenance)
    if jobs.fault:
        write_rows(run.provenance, jobs.rows)
        lines.append(f"{jobs.fault.partition(';')[0]}; the jobs before that line are kept")
    return lines


def _complete_records(run: RunFolder) -> None:
    """Nobody trains a finished run again: where done.json of a stage is missing, its rows tell what it held."""
    rows = rows_of(run)
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
    return (path for kind, path in markers if path.exists() and kind.read_sound(path) is None)
