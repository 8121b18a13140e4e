"""One grid point, or a run that exists, in this process: breakpoint(), python -m pdb and profilers work.

`--grid FILE` alone lists the points with their numbers. No Tune, no cluster, one rank. Ctrl-C saves nothing; the same
command, or a submit of the grid, goes on from the last epoch that was saved.

examples:
  python jobs/run.py --grid sweeps/size.yaml --miniature
  python jobs/run.py --grid sweeps/size.yaml --miniature --point 3
"""

import argparse
import sys
from pathlib import Path

from sia import command


def parse() -> argparse.Namespace:
    parser = command.parser(__doc__)
    parser.add_argument("run", nargs="?", help="a run's folder, or its name as jobs/status.py lists it")
    parser.add_argument("--grid", type=Path, help="a file of sweeps/")
    parser.add_argument("--point", type=int, metavar="N", help="the grid point, from 1")
    parser.add_argument("--stage", type=int, metavar="N", help="only this stage, which must be the next one")
    parser.add_argument("--miniature", action="store_true", help="of the same study on the embedded corpus")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override; repeatable")
    parser.add_argument("--cluster", choices=("debug",), default="debug", help="this process, always")
    arguments = parser.parse_args()
    if (arguments.run is None) == (arguments.grid is None):
        parser.error("give either RUN, or --grid FILE with --point N")
    if arguments.run and (arguments.point is not None or arguments.miniature or arguments.set):
        parser.error("--point, --miniature and --set belong to --grid: a run's configuration is fixed")
    if arguments.stage is not None and arguments.grid and arguments.point is None:
        parser.error("--stage belongs to one run: give --point N too")
    return arguments


def main() -> int:
    arguments = parse()
    from sia.config import parse_override
    from sia.report.console import sweep_table
    from sia.report.summary import summarise
    from sia.run.folder import find_run
    from sia.sweep.corpora import check_fit, provide_corpora
    from sia.sweep.grid import GridPoint, load_grid
    from sia.sweep.plan_table import points_table
    from sia.sweep.train_here import LAUNCH, train_here

    console = command.console()
    if arguments.grid is None:
        run = find_run(arguments.run)
        point = GridPoint(run.study, run.experiment())
    else:
        grid = load_grid(arguments.grid, arguments.miniature, dict(parse_override(text) for text in arguments.set))
        if arguments.point is None:
            console.print(points_table(grid))
            return 0
        point = grid.point(arguments.point)
        run = point.run
    provide_corpora([point.experiment])
    check_fit(run, point.experiment, LAUNCH)
    try:
        train_here(run, point.experiment, arguments.stage)
    except KeyboardInterrupt:
        print(f"\nleft: python jobs/run.py {run.path} goes on from the last epoch that was saved", file=sys.stderr)
        return 130
    console.print(sweep_table([summarise(run)]))
    return 0


if __name__ == "__main__":
    command.run(main)
