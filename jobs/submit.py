"""Submit a grid: train every pair of it, restart each from its best checkpoint, and print the table.

Submitting the same grid again leaves finished runs alone, attaches to running ones and adds what is new.

examples:
  python jobs/submit.py --grid sweeps/size.yaml --dry-run
  python jobs/submit.py --grid sweeps/size.yaml --miniature
  python jobs/submit.py --grid sweeps/size.yaml --profile slurm/gpu.yaml --detach
"""

import argparse
from pathlib import Path

from sia import command


def parse() -> argparse.Namespace:
    parser = command.parser(__doc__)
    parser.add_argument("--grid", type=Path, required=True, help="a file of sweeps/")
    parser.add_argument("--dry-run", action="store_true", help="print what would be done; submits nothing")
    parser.add_argument("--miniature", action="store_true", help="the same study on the embedded corpus")
    parser.add_argument("--rehearse", action="store_true", help="two steps of each full-size pair: memory and time")
    parser.add_argument("--cluster", choices=("auto", "local", "slurm", "debug"), default="auto")
    parser.add_argument("--profile", type=Path, help="resources of a job (slurm/NAME.yaml)")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override; repeatable")
    parser.add_argument("--max-concurrent", type=int, metavar="N", help="runs at once")
    parser.add_argument("--scheduler", choices=("tune", "asha", "none"), default="tune")
    parser.add_argument("--detach", action="store_true", help="drive the sweep from a small Slurm job, not from here")
    parser.add_argument("--dependency", metavar="SPEC", help="with --detach: sbatch's, for example afterok:123")
    arguments = parser.parse_args()
    if arguments.dependency and not arguments.detach:
        parser.error("--dependency belongs to --detach: it is the driver's job that waits")
    return arguments


def driver_arguments(arguments: argparse.Namespace) -> list[str]:
    """The flags that a detached driver is given, besides its grid."""
    given = ["--cluster", "slurm", "--scheduler", arguments.scheduler]
    given += ["--miniature"] if arguments.miniature else []
    given += ["--profile", str(arguments.profile.absolute())] if arguments.profile else []
    given += ["--max-concurrent", str(arguments.max_concurrent)] if arguments.max_concurrent else []
    return given + [part for text in arguments.set for part in ("--set", text)]


def main() -> int:
    arguments = parse()
    from sia.cluster.launch import choose_launches, default_concurrency
    from sia.config import parse_override
    from sia.sweep.grid import load_grid

    command.check_counts(arguments, "max_concurrent")
    grid = load_grid(arguments.grid, arguments.miniature, dict(parse_override(text) for text in arguments.set))
    of_grid = {point.run.name: point.profile for point in grid.points}
    launches = choose_launches(
        of_grid, arguments.cluster, arguments.profile, arguments.dry_run, arguments.max_concurrent
    )
    console = command.console()
    if arguments.dry_run:
        from sia.rehearsal.cost import rehearsed_table
        from sia.sweep.plan_table import show_plan

        show_plan(grid, launches, console)
        if (costs := rehearsed_table(grid, launches)) is not None:
            console.print(costs)
        return 0
    if arguments.rehearse:
        from sia.rehearsal.grid import show_rehearsal

        show_rehearsal(grid, launches, console)
        return 0
    from sia.sweep.corpora import check_fit, provide_corpora
    from sia.sweep.drive import Sweep, submit_sweep

    concurrency = arguments.max_concurrent or default_concurrency(next(iter(launches.values())))
    works_now = f"python jobs/submit.py --grid {arguments.grid} --miniature" if grid.has_miniature else ""
    provide_corpora([point.experiment for point in grid.points], works_now)
    for point in grid.points:
        check_fit(point.run, point.experiment, launches[point.run.name])
    if arguments.detach:
        from sia.sweep.detach import detach

        launch = next(iter(launches.values()))
        job = detach(grid, arguments.grid, launch, driver_arguments(arguments), arguments.dependency)
        print(f"job {job} drives study {grid.study}; watch it with python jobs/status.py {grid.study}")
        return 0
    for line in grid.told:
        print(line)
    runs = [point.run for point in grid.points]
    by_name = arguments.cluster != "auto"
    sweep = Sweep(grid.study, runs, launches, arguments.scheduler, concurrency, by_name, grid.create)
    return submit_sweep(sweep, console)


if __name__ == "__main__":
    command.run(main)
