"""Measure the recall of a run's checkpoint on a split of its corpus, or of another one; compare several runs.

examples:
  python jobs/evaluate.py DG2A32 --intervals
  python jobs/evaluate.py DG2A32 DG4A64 --checkpoint last --split train --sample 500
"""

import argparse
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from sia import command


def parse() -> argparse.Namespace:
    parser = command.parser(__doc__)
    parser.add_argument("runs", nargs="+", metavar="RUN", help="a run's folder, or its name as jobs/status.py lists it")
    parser.add_argument("--checkpoint", default="best", metavar="best|last|epoch=N")
    parser.add_argument("--split", choices=("train", "validation", "test"), default="test")
    parser.add_argument("--sample", type=int, metavar="N", help="N fixed captions of the split instead of all")
    parser.add_argument("--pool", type=int, metavar="N", help="choose among N images and their captions, not all")
    parser.add_argument("--folds", type=int, default=1, metavar="N", help="the mean of N such pools")
    parser.add_argument("--intervals", action="store_true", help="95 %% bootstrap intervals, also of one run")
    parser.add_argument("--corpus", type=Path, metavar="DIR", help="another prepared corpus than the run's own")
    parser.add_argument("--json", action="store_true", help="print one JSON object a run, a line each, the best first")
    parser.add_argument("--cluster", choices=("here", "slurm"), default="here", help="slurm: a job array, a task a run")
    parser.add_argument("--profile", type=Path, help="resources of a task on Slurm (slurm/NAME.yaml)")
    return parser.parse_args()


def main() -> None:
    arguments = parse()
    from sia.checkpoint.chosen import choose_checkpoint
    from sia.errors import UsageError
    from sia.run.folder import find_run

    command.check_counts(arguments, "sample", "pool", "folds")
    if arguments.folds > 1 and arguments.pool is None:
        raise UsageError(f"--folds {arguments.folds}: say how many images a pool has too, with --pool N")
    runs = [find_run(name) for name in arguments.runs]
    for run in runs:
        choose_checkpoint(run, arguments.checkpoint)  # of all, before the first one is measured
    names = ("checkpoint", "split", "sample", "pool", "folds", "intervals", "corpus")
    options = {name: getattr(arguments, name) for name in names}
    options["intervals"] = arguments.intervals or len(runs) > 1  # which run is better is not told without
    results: Iterable[dict[str, Any]]
    if arguments.cluster == "slurm":
        from sia.cluster.profile import choose_cluster, load_profile
        from sia.evaluation.job import evaluate_on_slurm
        from sia.progress import tracked

        choose_cluster("slurm", instead="here")
        options["corpus"] = arguments.corpus and str(arguments.corpus.absolute())
        measured_there = evaluate_on_slurm(runs, load_profile(arguments.profile), options)
        results = tracked(measured_there, "evaluations", len(runs), quiet=arguments.json)
    else:
        # It loads torch: not before the runs are known to be there.
        from sia.evaluation.evaluate import evaluate_run

        results = (evaluate_run(run, **options, label="" if arguments.json else run.name) for run in runs)
    from sia.evaluation.table import INTERVALS_NOTE, best_first

    measured = best_first(list(results))
    if arguments.json:
        for result in measured:
            print(json.dumps(result))
        return
    tell(measured, arguments)
    if options["intervals"]:
        print(INTERVALS_NOTE)


def tell(results: list[Mapping[str, Any]], arguments: argparse.Namespace) -> None:
    from sia.evaluation.table import comparison_heading, comparison_table, heading, pool_line, recall_table

    if len(results) > 1:
        print(comparison_heading(results, arguments.checkpoint, arguments.split, arguments.pool))
        command.console().print(comparison_table(results))
    else:
        print(heading(results[0], arguments.checkpoint, arguments.split))
        print(pool_line(results[0], arguments.pool))
        command.console().print(recall_table(results[0]["measures"]))


if __name__ == "__main__":
    command.run(main)
