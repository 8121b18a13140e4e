"""Two sides run in turn in one process; how they are told."""

import multiprocessing
import os
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from sia.fitted_table import FittedTable
from sia.progress import Said

Action = Callable[[], Any]
Make = Callable[[], Action]  # what is made beforehand is not timed; at module level, where memory is measured


@dataclass(frozen=True)
class Comparison:
    """The first side is ours; each other one has its ratio to it."""

    case: str
    seconds: dict[str, list[float]]  # of each side, a turn each
    memory_mb: dict[str, float] = field(default_factory=dict)  # the peak above imports, in a process of its own
    facts: dict[str, Any] = field(default_factory=dict)

    def ratios(self, side: str) -> list[float]:
        """How many times as long a side took as ours, turn by turn."""
        ours = next(iter(self.seconds.values()))
        return [its / own for its, own in zip(self.seconds[side], ours, strict=True)]

    def as_json(self) -> dict[str, Any]:
        return {
            **asdict(self),
            "machine": machine(),
            "ratios": {side: spread(self.ratios(side)) for side in self.seconds},
        }


def spread(values: list[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "low": min(values), "high": max(values)}


def in_turn(
    case: str, sides: Mapping[str, Make], turns: int, clock: Callable[[], float] = time.perf_counter
) -> Comparison:
    """Each side once to warm up, then `turns` times, one after the other, beginning with another side each time."""
    actions = {side: make() for side, make in sides.items()}
    seconds: dict[str, list[float]] = {side: [] for side in sides}
    said = Said(case)  # between turns: a display that moves would take a part of what is measured
    for turn in range(turns + 1):
        order = list(actions)
        for side in order[turn % len(order) :] + order[: turn % len(order)]:
            taken = _seconds(actions[side], clock)
            if turn:
                seconds[side].append(taken)
        said.tell(f"turn {turn} of {turns}" if turn else "warmed up")
    return Comparison(case, seconds)


def peaks_mb(sides: Mapping[str, Make]) -> dict[str, float]:
    """The peak memory of each side's action, in a fresh process, above its imports; on a GPU, the device's."""
    fresh = multiprocessing.get_context("spawn")
    peaks = {}
    for side, make in sides.items():
        with fresh.Pool(1) as pool:
            peaks[side] = pool.apply(_peak_mb, (make, torch.get_num_threads()))
    return peaks


def machine() -> dict[str, Any]:
    """What every figure depends on."""
    card = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    threads = torch.get_num_threads()
    return {"threads": threads, "cores": os.cpu_count(), "card": card, "torch": torch.__version__}


def table_of(comparison: Comparison) -> FittedTable:
    """Medians, and the ratios' spread."""
    where, rows = ", ".join(f"{name} {value}" for name, value in machine().items() if value is not None), []
    for side, taken in comparison.seconds.items():
        ratio = spread(comparison.ratios(side))
        row = {"side": side, **{name: f"{value * 1e3:,.1f} ms" for name, value in spread(taken).items()}}
        row |= {"times ours": f"{ratio['median']:.2f}", "spread": f"{ratio['low']:.2f} to {ratio['high']:.2f}"}
        memory = {"peak memory": f"{comparison.memory_mb[side]:,.0f} MB"} if comparison.memory_mb else {}
        rows.append(row | memory)
    title, leave_out = f"{comparison.case} ({where})", ("low", "high", "peak memory", "spread")
    table = FittedTable(rows, leave_out, [title], wrap=("side",), right=list(rows[0])[1:])
    table.caption = "; ".join(f"{name}: {value}" for name, value in comparison.facts.items())
    return table


def _seconds(action: Action, clock: Callable[[], float]) -> float:
    _wait()
    began = clock()
    action()
    _wait()
    return clock() - began


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def _peak_mb(make: Make, threads: int) -> float:
    torch.set_num_threads(threads)
    before = _resident_mb()
    make()()
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    return _resident_mb() - before


def _resident_mb() -> float:
    """The largest so far. What getrusage tells begins, in a process that was started, with its parent's."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 2**10
