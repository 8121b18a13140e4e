"""Submit a grid: train every pair of it, restart each from its best checkpoint, and print the table.

Submitting the same grid again leaves finished runs alone, attaches to running ones and adds what is new.
"""

import argparse
from pathlib import Path

from sia import command


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--grid", type=Path, required=True, help="a file of sweeps/")
    parser.add_argument("--dry-run", action="store_true", help="print what would be done; submits nothing")
    parser.add_argument("--miniature", action="store_true", help="the same study on the embedded corpus")
    parser.add_argument("--rehearse", action="store_true", help="two steps of each full-size pair: memory and time")
    parser.add_argument("--cluster", choices=("auto", "local", "slurm", "debug"), default="auto")
    parser.add_argument("--profile", type=Path, help="resources of a job (slurm/NAME.yaml)")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override; repeatable")
    parser.add_argument("--max-concurrent", type=int, metavar="N", help="runs at once")
    parser.add_argument("--scheduler", choices=("tune", "asha", "none"), default="tune")
    return parser.parse_args()


def main() -> int:
    arguments = parse()
    from sia.config import parse_override
    from sia.errors import UsageError
    from sia.sweep.grid import load_grid
    from sia.sweep.launch import choose_launch, default_concurrency

    if arguments.max_concurrent is not None and arguments.max_concurrent < 1:
        raise UsageError(f"--max-concurrent {arguments.max_concurrent}: give 1 or more")
    grid = load_grid(arguments.grid, arguments.miniature, dict(parse_override(text) for text in arguments.set))
    launch = choose_launch(arguments.cluster, arguments.profile, grid.profile)
    console = command.console()
    if arguments.dry_run:
        from sia.sweep.plan_table import plan_table

        console.print(plan_table(grid.study, grid.points, launch.profile))
        return 0
    if arguments.rehearse:
        from sia.sweep.rehearse import rehearsal_table, rehearse

        results = []
        for result in rehearse(grid.study, grid.points, launch):
            print(f"{result.pair}: batch {result.batch_size}, {result.seconds_a_step:.2f} s a step", flush=True)
            results.append(result)
        console.print(rehearsal_table(results))
        return 0
    from sia.sweep.command import submit_sweep
    from sia.sweep.corpora import check_fit, provide_corpora
    from sia.sweep.drive import Sweep

    concurrency = arguments.max_concurrent or default_concurrency(launch)
    works_now = f"python jobs/submit.py --grid {arguments.grid} --miniature" if grid.has_miniature else ""
    provide_corpora([point.experiment for point in grid.points], works_now)
    check_fit([point.experiment for point in grid.points], launch)
    runs = [point.run for point in grid.points]
    sweep = Sweep(grid.study, runs, launch, arguments.scheduler, concurrency, create=grid.create)
    return submit_sweep(sweep, console)


if __name__ == "__main__":
    command.run(main)
