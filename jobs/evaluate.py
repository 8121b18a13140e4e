"""Measure the recall of a run's checkpoint on a split of its corpus."""

import argparse
import json

from sia import command


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", help="a run's folder, or its name as jobs/status.py lists it")
    parser.add_argument("--checkpoint", default="best", metavar="best|last|epoch=N")
    parser.add_argument("--split", choices=("train", "validation", "test"), default="test")
    parser.add_argument("--sample", type=int, metavar="N", help="N fixed captions of the split instead of all")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser.parse_args()


def main() -> None:
    arguments = parse()
    from sia.errors import UsageError
    from sia.run_folder import find_run

    if arguments.sample is not None and arguments.sample < 1:
        raise UsageError(f"--sample {arguments.sample}: give 1 or more")
    run = find_run(arguments.run)
    # It loads torch: not before the run is known to be there.
    from sia.training.evaluation import evaluate_run

    result = evaluate_run(run, arguments.checkpoint, arguments.split, arguments.sample)
    if arguments.json:
        print(json.dumps(result))
        return
    print(
        f"{result['run']}, {arguments.checkpoint} checkpoint (stage {result['stage']}, epoch {result['epoch']}), "
        f"{arguments.split} split: {result['num_captions']:,} captions, {result['num_images']:,} images"
    )
    for name, value in result["measures"].items():
        print(f"  {name:32} {value:.4f}")


if __name__ == "__main__":
    command.run(main)
