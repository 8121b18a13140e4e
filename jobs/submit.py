"""Submit a grid: train every pair of it, restart each from its best checkpoint, and print the table.

Submitting the same grid again leaves finished runs alone, attaches to running ones and adds what is new. Where somebody
drives the study already, that is watched.

examples:
  python jobs/submit.py --grid sweeps/size.yaml --dry-run
  python jobs/submit.py --grid sweeps/size.yaml --miniature
  python jobs/submit.py --grid sweeps/size.yaml --profile slurm/gpu.yaml --detach
  python jobs/submit.py --again size
"""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from sia import command

if TYPE_CHECKING:
    from sia.run.records import Request
    from sia.sweep.grid import Grid


def parse() -> argparse.Namespace:
    parser = command.parser(__doc__)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--grid", type=Path, help="a file of sweeps/")
    what.add_argument("--again", metavar="STUDY", help="what was submitted as this study, with all its settings")
    parser.add_argument("--dry-run", action="store_true", help="print what would be done, or refused; submits nothing")
    parser.add_argument("--miniature", action="store_true", help="the same study on the embedded corpus")
    parser.add_argument("--rehearse", action="store_true", help="two steps of each full-size pair: memory and time")
    parser.add_argument("--cluster", choices=("auto", "local", "slurm", "debug"), help="default: auto")
    parser.add_argument("--profile", type=Path, help="resources of a job (slurm/NAME.yaml)")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override; repeatable")
    parser.add_argument("--max-concurrent", type=int, metavar="N", help="runs at once")
    parser.add_argument("--scheduler", choices=("tune", "asha", "none"), help="default: tune")
    parser.add_argument("--detach", action="store_true", help="drive the sweep from a small Slurm job, not from here")
    parser.add_argument("--dependency", metavar="SPEC", help="with --detach: sbatch's, for example afterok:123")
    parser.add_argument("--yes", action="store_true", help="begin more than 200 jobs without a question")
    arguments = parser.parse_args()
    if arguments.dependency and not arguments.detach:
        parser.error("--dependency belongs to --detach: it is the driver's job that waits")
    if arguments.again and (arguments.miniature or arguments.set):
        parser.error("--again repeats the grid, --miniature and --set of the last submission: leave them out")
    return arguments


def what_is_asked(arguments: argparse.Namespace) -> "tuple[Request, Grid]":
    from sia.run.records import Request
    from sia.sweep.request import load, repeat

    how = {name: getattr(arguments, name) for name in ("cluster", "scheduler", "max_concurrent")}
    how |= {"profile": arguments.profile and str(arguments.profile.absolute()), "detach": arguments.detach or None}
    if arguments.cluster in ("local", "debug"):
        how["detach"] = arguments.detach  # one that was asked for before belongs to Slurm
    if arguments.again:
        return repeat(arguments.again, **how)
    given = {name: value for name, value in how.items() if value is not None}
    request = Request(grid=str(arguments.grid), miniature=arguments.miniature, overrides=arguments.set, **given)
    return request, load(request)


def main() -> int:
    arguments = parse()
    from sia.cluster.launch import choose_launches
    from sia.sweep.preflight import Preflight

    command.check_counts(arguments, "max_concurrent")
    request, grid = what_is_asked(arguments)
    of_grid = {point.run.name: point.profile for point in grid.points}
    profile = Path(request.profile) if request.profile else None
    launches = choose_launches(of_grid, request.cluster, profile, arguments.dry_run, request.max_concurrent)
    console = command.console()
    preflight = Preflight(request, grid, launches, arguments.dependency)
    if arguments.dry_run:
        return preflight.show(console)
    if arguments.rehearse:
        from sia.rehearsal.study import show_rehearsal

        show_rehearsal(grid, launches, console)
        return 0
    from sia.sweep.drive import submit_grid

    return submit_grid(preflight, console, arguments.yes, watch=not arguments.detach)


if __name__ == "__main__":
    command.run(main)
