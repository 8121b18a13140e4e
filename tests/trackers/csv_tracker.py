"""A tracker of one's own: a table a run."""

import csv
import os
from pathlib import Path

from sia.run.folder import RunFolder
from sia.run.mended import rows_of
from sia.trackers.tracker import Ending, Mirrored, Tracker


class CsvTracker(Tracker):
    name = "CSV"

    def mirror(self, run: RunFolder, closing: Ending | None) -> Mirrored:
        rows = rows_of(run)
        self._table(run).parent.mkdir(parents=True, exist_ok=True)
        with open(self._table(run), "w", newline="") as stream:
            table = csv.DictWriter(stream, list(dict.fromkeys(key for row in rows for key in row)))
            table.writeheader()
            table.writerows(rows)
        status = "FINISHED" if run.finished.exists() else closing.status if closing else "RUNNING"
        return Mirrored(len(rows), status)

    def how_to_open(self, runs: list[RunFolder]) -> list[str]:
        return [f"column -s, -t {table}" for run in runs if (table := self._table(run)).is_file()]

    def _table(self, run: RunFolder) -> Path:
        return Path(self.uri or os.environ["CSV_TABLES"]) / run.study / f"{run.name}.csv"
