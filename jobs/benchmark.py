"""Measure what a pair costs on this machine: ours against the straightforward way, run in turn, as ratios.

examples:
  python jobs/benchmark.py step --case miniature
  python jobs/benchmark.py plan --grid sweeps/size.yaml --batch 8
"""

import argparse
import json
import sys
from contextlib import redirect_stdout
from pathlib import Path

from sia import command
from sia.benchmark import PARTS


def parse() -> argparse.Namespace:
    told = "".join(f"\n  {part:<10} {what}" for part, what in PARTS.items())
    parser = command.parser(str(__doc__).replace("\n\nexamples:", f"\n\nparts:{told}\n\nexamples:"))
    parser.add_argument("part", choices=PARTS, metavar="PART", help="one of those above")
    parser.add_argument("--case", action="append", help="one of the part's cases; repeatable (default: all)")
    parser.add_argument("--turns", type=int, default=7, help="how often each side is run (default: 7)")
    parser.add_argument("--threads", type=int, default=1, help="of torch (default: 1)")
    parser.add_argument("--grid", type=Path, help="of plan: a file of sweeps/")
    parser.add_argument("--miniature", action="store_true", help="of plan: the same study on the embedded corpus")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="of plan: override; repeatable")
    parser.add_argument("--batch", type=int, help="of plan: captions of a measured step (default: the pair's batch)")
    parser.add_argument("--bandwidth", type=float, default=10.0, help="of plan: GB/s between ranks (default: 10)")
    parser.add_argument("--json", action="store_true", help="print one JSON document, with every turn")
    arguments = parser.parse_args()
    if min(arguments.turns, arguments.threads, arguments.batch or 1) < 1 or arguments.bandwidth <= 0:
        parser.error("--turns, --threads and --batch: give 1 or more; --bandwidth: more than 0")
    if (arguments.part == "plan") != (arguments.grid is not None):
        parser.error("plan takes --grid, and no other part does")
    return arguments


def main() -> None:
    arguments = parse()
    import importlib

    import torch

    from sia.benchmark.harness import table_of
    from sia.errors import UsageError

    torch.set_num_threads(arguments.threads)
    if arguments.part == "plan":
        return show_plan(arguments)
    cases = importlib.import_module(f"sia.benchmark.{arguments.part}").CASES
    if unknown := sorted(set(arguments.case or []) - cases.keys()):
        raise UsageError(f"--case {unknown[0]}: {arguments.part} has {', '.join(cases)}")
    compared = []
    for case in arguments.case or cases:
        with redirect_stdout(sys.stderr):  # how far it has come; --json prints one document
            compared.append(cases[case](arguments.turns))
        if not arguments.json:
            command.console().print(table_of(compared[-1]))
    if arguments.json:
        print(json.dumps([one.as_json() for one in compared]))


def show_plan(arguments: argparse.Namespace) -> None:
    from sia.benchmark.plan import plan, table_of
    from sia.config import parse_override
    from sia.sweep.grid import load_grid

    grid = load_grid(arguments.grid, arguments.miniature, dict(parse_override(text) for text in arguments.set))
    rows = plan(grid.points, arguments.bandwidth, arguments.turns, arguments.batch)
    if arguments.json:
        print(json.dumps(rows))
    else:
        command.console().print(table_of(rows, arguments.bandwidth))


if __name__ == "__main__":
    command.run(main)
