"""Every table that a command prints, on terminals of several widths: no line is wider, no number is cut."""

import io
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from desk import REPOSITORY
from rich.console import Console, RenderableType
from written_runs import begin_run, experiment, finish_run, measures, status_table

from sia.benchmark import harness
from sia.benchmark import plan as costs
from sia.checks import problem
from sia.cluster.launch import Launch
from sia.cluster.profile import Profile
from sia.doctor.diagnose import findings_table
from sia.evaluation.table import comparison_table, recall_table
from sia.rehearsal import cost_table
from sia.report.console import sweep_table
from sia.report.summary import summarise
from sia.run.cost import Pace
from sia.sweep.grid import Grid, GridPoint, load_grid
from sia.sweep.plan_table import plan_table, points_table

RESTARTS = REPOSITORY / "sweeps" / "restarts.yaml"
LOSSES = REPOSITORY / "sweeps" / "losses.yaml"
SIDES = (("low", 0.9), ("high", 1.0))
CAPTIONS = {"train": 400_000, "validation": 1_000, "test": 1_000}


def with_intervals(value: float) -> dict[str, float]:
    found = measures(value)
    return found | {f"{key}_{side}": by * told for key, told in found.items() for side, by in SIDES}


def evaluated(run: str, value: float, corpus: str) -> dict[str, Any]:
    return {"run": run, "epoch": 150, "corpus": corpus, "measures": with_intervals(value)}


def rehearsed(grid: Grid, patch: pytest.MonkeyPatch) -> RenderableType | None:
    patch.setattr(cost_table, "rehearsed", lambda *_: Pace(2.34, 64, device="NVIDIA H200"))
    patch.setattr(cost_table, "captions_of", lambda _: CAPTIONS)
    launches = dict.fromkeys((one.run.name for one in grid.points), Launch("local", Profile()))
    return cost_table.rehearsed_table(grid, launches)


def planned(grid: Grid) -> RenderableType:
    rows = [costs._row(point, Pace(2.34, 64, device="NVIDIA H200", cores=2), 10.0) for point in grid.points]
    return costs.table_of(rows, 10.0)


def compared() -> RenderableType:
    taken = {"ours": [12.3456, 13.0], "an empty program": [0.0456, 0.05]}
    facts = {"CPU seconds of both together": 1.23, "loss, ours": 0.123456, "loss, plain": 0.123457}
    memory = {"ours": 2817.0, "an empty program": 6214.0}
    return harness.table_of(harness.Comparison("1,000 captions of 2 to 20 s", taken, memory, facts))


@pytest.fixture
def tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, RenderableType]:
    """Each table, by a pattern of what it is there to tell."""
    monkeypatch.setenv("SIA_RUNS", str(tmp_path / "runs"))
    grids = [load_grid(path) for path in (RESTARTS, LOSSES)]
    rates = [experiment(**{"optimizer.learning_rate": rate}) for rate in (0.00012345, 0.001)]
    runs = [finish_run(tmp_path / "runs", "size", rates[0]), begin_run(tmp_path / "runs", "size", rates[1])]
    changed = [{"loss.name": "hinge_semihard", "training.seed": seed} for seed in (0, 1)] + [{}, {"training.seed": 1}]
    planned_points = [
        GridPoint("plan", experiment(**{"optimizer.learning_rate": 0.00012345, **one})) for one in changed
    ]
    results = [evaluated("DG4A2048-0123456789", 0.8, "corpora/places205"), evaluated("DG2A64-01", 0.4, "corpora/b")]
    points = [points_table(grid) for grid in grids]
    told = rehearsed(grids[0], monkeypatch)
    assert told is not None
    return {
        r"80\.0 \[72\.0, 80\.0\]": recall_table(with_intervals(0.8)),
        r"DG4A2048-0123456789 .* 80\.0 .* 72\.0(?s:.)*\[72\.0, 80\.0\] *\[64\.8, 72\.0\]": comparison_table(results),
        r"problem +a check  it is 40 s ahead": findings_table(
            [replace(problem("it is 40 s ahead " * 20, "a cure " * 20), check="a check")]
        ),
        r"4 +DG2A2048-": points[0],
        r"6 +DG3A1024-": points[1],
        r"DG2A2048-\w{10} .*\d d .* \d\.\d\d": told,
        r"DG2A2048-\w{10} .*\d d, \d": planned(grids[0]),
        r"12,672\.8 ms .* 1\.00": compared(),
        rf"{runs[0].name} +finished .* 47\.5": status_table(runs),
        rf"{runs[0].name} .* 50\.0 / 45\.0": sweep_table([summarise(run) for run in runs]),
        rf"{planned_points[3].experiment.signature} +submit": plan_table("plan", planned_points, [Profile()] * 4),
    }


@pytest.mark.parametrize("width", [60, 80, 100, 160])
def test_no_line_is_wider_than_the_terminal_and_no_number_is_cut(
    tables: dict[str, RenderableType], width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    for wanted, table in tables.items():
        console = Console(width=width, file=io.StringIO(), markup=False)
        console.print(table)
        shown = console.file.getvalue()  # type: ignore[attr-defined]
        assert max(map(len, shown.splitlines())) <= width, shown
        assert re.search(wanted, shown) and "…" not in shown, shown
