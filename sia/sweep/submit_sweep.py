"""A sweep as a command carries it out: the drive, and what a person is told at its end."""

import sys

from rich.console import Console

from sia.operate.damage import readable
from sia.report.console import sweep_table
from sia.report.summary import summarise
from sia.report.write import write_report
from sia.sweep.drive import Sweep, drive
from sia.trackers.tracker import Tracker, tracker_of


def submit_sweep(sweep: Sweep, console: Console) -> int:
    """Drive the sweep and print its table, its report and its failures; the exit status."""
    if warning := tracker_of(sweep.study).warning():
        print(f"warning: {warning}", file=sys.stderr)
    try:
        errors = drive(sweep)
    except KeyboardInterrupt:
        return _say_interrupted(sweep)
    return tell(sweep, console, errors)


def tell(sweep: Sweep, console: Console, errors: dict[str, str]) -> int:
    console.print(sweep_table([summarise(run) for run in readable(sweep.runs)[0]]))
    print(f"report: {write_report(sweep.study)}")
    print(f"runs:   python jobs/status.py {sweep.study}")
    print(_where(tracker_of(sweep.study), sweep))
    for name, error in errors.items():
        print(f"error: {name}: {error}", file=sys.stderr)
    return 1 if errors else 0


def _where(tracker: Tracker, sweep: Sweep) -> str:
    lines = tracker.how_to_open(sweep.runs) or [f"nothing is mirrored yet; python jobs/track.py {sweep.study}"]
    return f"{tracker.name}: " + f"\n{' ' * len(tracker.name)}  ".join(lines)


def _say_interrupted(sweep: Sweep) -> int:
    print(
        f"\nleft: jobs of study {sweep.study} that nobody cancelled go on; submit the same grid again to attach to "
        f"them, or watch them with `python jobs/status.py {sweep.study}`",
        file=sys.stderr,
    )
    return 130
