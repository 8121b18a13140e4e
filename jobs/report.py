"""Write a study's report (tables and figures): python jobs/report.py STUDY [--out DIR]"""

import argparse
from pathlib import Path

from sia import command


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("study", help="a folder of runs/, such as a sweep's name")
    parser.add_argument("--out", type=Path, help="where to write it (default: reports/STUDY beside runs/)")
    return parser.parse_args()


def main() -> None:
    options = parse()
    # matplotlib takes a second to import: not before --help has been answered.
    from sia.report.write import write_report

    print(write_report(options.study, options.out))


if __name__ == "__main__":
    command.run(main)
