"""A sweep as a command carries it out: the drive, and what a person is told at its end."""

import sys

from rich.console import Console

from sia.operate.damage import readable
from sia.report.console import sweep_table
from sia.report.summary import summarise
from sia.report.write import write_report
from sia.sweep.drive import Sweep, drive
from sia.trackers.mlflow_mirror import mirrored_at
from sia.trackers.mlflow_store import network_mount_warning, tracking_uri, without_password
from sia.trackers.mlflow_view import how_to_open


def submit_sweep(sweep: Sweep, console: Console) -> int:
    """Drive the sweep and print its table, its report and its failures; the exit status."""
    warning = network_mount_warning(tracking_uri())
    if warning:
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
    print(f"MLflow: {_mlflow(sweep)}")
    for name, error in errors.items():
        print(f"error: {name}: {error}", file=sys.stderr)
    return 1 if errors else 0


def _mlflow(sweep: Sweep) -> str:
    mirrored = (mirrored_at(run, tracking_uri()) for run in sweep.runs)
    ids = [one["experiment_id"] for one in mirrored if one is not None]
    if not ids:
        return f"nothing is mirrored yet; python jobs/track.py {sweep.study}"
    return "\n        ".join(how_to_open(without_password(tracking_uri()), ids[0]))


def _say_interrupted(sweep: Sweep) -> int:
    print(
        f"\nleft: jobs of study {sweep.study} that nobody cancelled go on; submit the same grid again to attach to "
        f"them, or watch them with `python jobs/status.py {sweep.study}`",
        file=sys.stderr,
    )
    return 130
