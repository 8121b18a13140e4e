"""Write a study's report (tables and figures): python jobs/report.py STUDY [--out DIR]"""

import argparse
import sys
from pathlib import Path

from sia.errors import UserError


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("study", help="a folder of runs/, such as a sweep's name")
    parser.add_argument("--out", type=Path, help="where to write it (default: reports/STUDY beside runs/)")
    options = parser.parse_args()
    # matplotlib takes a second to import: not before --help has been answered.
    from sia.report.write import write_report

    try:
        print(write_report(options.study, options.out))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_status
    return 0


if __name__ == "__main__":
    sys.exit(main())
