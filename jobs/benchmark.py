"""Measure what a pair costs on this machine: ours against the straightforward way, run in turn, as ratios."""

import argparse
import json

from sia import command
from sia.benchmark import PARTS


def parse() -> argparse.Namespace:
    told = "\n".join(f"  {part:<9} {what}" for part, what in PARTS.items())
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, epilog=f"parts:\n{told}", formatter_class=form)
    parser.add_argument("part", choices=PARTS, metavar="PART", help="one of those below")
    parser.add_argument("--case", action="append", help="one of the part's cases; repeatable (default: all)")
    parser.add_argument("--turns", type=int, default=7, help="how often each side is run (default: 7)")
    parser.add_argument("--threads", type=int, default=1, help="of torch (default: 1)")
    parser.add_argument("--json", action="store_true", help="print one JSON document, with every turn")
    arguments = parser.parse_args()
    if min(arguments.turns, arguments.threads) < 1:
        parser.error("--turns and --threads: give 1 or more")
    return arguments


def main() -> None:
    arguments = parse()
    import importlib

    import torch

    from sia.benchmark.harness import table_of
    from sia.errors import UsageError

    cases = importlib.import_module(f"sia.benchmark.{arguments.part}").CASES
    if unknown := sorted(set(arguments.case or []) - cases.keys()):
        raise UsageError(f"--case {unknown[0]}: {arguments.part} has {', '.join(cases)}")
    torch.set_num_threads(arguments.threads)
    compared = []
    for case in arguments.case or cases:
        compared.append(cases[case](arguments.turns))
        if not arguments.json:
            command.console().print(table_of(compared[-1]))
    if arguments.json:
        print(json.dumps([one.as_json() for one in compared]))


if __name__ == "__main__":
    command.run(main)
