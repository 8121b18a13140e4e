"""Train one pair, through the same launcher, restarts and records as a sweep.

examples:
  python jobs/train.py --config runs/size-miniature/DG2A32-d86a3fc926/config.yaml --set training.seed=1
"""

from pathlib import Path

from sia import command


def main() -> int:
    parser = command.parser(__doc__)
    parser.add_argument("--config", type=Path, required=True, help="an experiment (YAML); a run's config.yaml is one")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override; repeatable")
    parser.add_argument("--study", default="single", help="the study that the run is filed under")
    parser.add_argument("--cluster", choices=("auto", "local", "slurm", "debug"), default="auto")
    parser.add_argument("--profile", type=Path, help="resources of the job (slurm/NAME.yaml)")
    arguments = parser.parse_args()
    from sia.cluster.launch import choose_launch
    from sia.config import load_experiment, parse_override
    from sia.run.folder import check_study_name
    from sia.sweep.corpora import check_fit, provide_corpora
    from sia.sweep.drive import Sweep, submit_sweep
    from sia.sweep.grid import GridPoint

    overrides = dict(parse_override(text) for text in arguments.set)
    experiment = load_experiment(arguments.config, overrides)
    launch = choose_launch(arguments.cluster, arguments.profile, None)
    provide_corpora([experiment])
    point = GridPoint(check_study_name(arguments.study), experiment)
    check_fit(point.run, experiment, launch)
    by_name = arguments.cluster != "auto"
    sweep = Sweep(point.study, [point.run], {point.run.name: launch}, "none", by_name=by_name, create=point.create)
    return submit_sweep(sweep, command.console())


if __name__ == "__main__":
    command.run(main)
