"""Go on with a run from its last checkpoint, or add a warm restart from a chosen one.

examples:
  python jobs/resume.py DG2A32
  python jobs/resume.py DG2A32 --from best --epochs 4 --lr-scale 0.5
"""

import argparse
from pathlib import Path

from sia import command


def parse() -> argparse.Namespace:
    parser = command.parser(__doc__)
    parser.add_argument("run", help="a run's folder, or its name as jobs/status.py lists it")
    parser.add_argument("--from", dest="start", metavar="best|last|epoch=N", help="start a warm restart from there")
    parser.add_argument("--epochs", type=int, help="length of the warm restart")
    parser.add_argument("--lr-scale", type=float, help="its share of the run's initial rate (default: 0.5)")
    parser.add_argument("--cluster", choices=("auto", "local", "slurm", "debug"), default="auto")
    parser.add_argument("--profile", type=Path, help="resources of the job (slurm/NAME.yaml)")
    arguments = parser.parse_args()
    if (arguments.start is None) != (arguments.epochs is None):
        parser.error("--from and --epochs go together: a warm restart needs a checkpoint and a length")
    if arguments.lr_scale is not None and arguments.start is None:
        parser.error("--lr-scale belongs to a warm restart: give --from and --epochs too")
    return arguments


def main() -> int:
    arguments = parse()
    from sia.cluster.launch import former_launch
    from sia.run.folder import find_run
    from sia.sweep.chain import add_restart
    from sia.sweep.corpora import check_fit
    from sia.sweep.drive import Sweep, submit_sweep

    run = find_run(arguments.run)
    launch = former_launch(run, arguments.cluster, arguments.profile)
    # First: a restart that cannot be trained must not un-finish the run.
    check_fit(run, run.experiment(), launch)

    def add() -> None:
        """Once the study is this driver's: a restart that nobody may train must not un-finish the run."""
        if arguments.start is not None:
            lr_scale = 0.5 if arguments.lr_scale is None else arguments.lr_scale
            number = add_restart(run, arguments.start, arguments.epochs, lr_scale)
            print(f"{run.name}: stage {number} added, {arguments.epochs} epochs from {arguments.start}")

    by_name = arguments.cluster != "auto"
    sweep = Sweep(run.study, [run], {run.name: launch}, "none", by_name=by_name, create=add)
    return submit_sweep(sweep, command.console())


if __name__ == "__main__":
    command.run(main)
