"""Write a study's report: one page with its tables and figures.

examples:
  python jobs/report.py size-miniature
"""

import sys
from pathlib import Path

from sia import command


def main() -> None:
    parser = command.parser(__doc__)
    parser.add_argument("study", help="a folder of runs/, such as a sweep's name")
    parser.add_argument("--out", type=Path, help="where to write it (default: reports/STUDY beside runs/)")
    parser.add_argument("--no-gallery", action="store_true", help="leave out what the best pair finds")
    options = parser.parse_args()
    # matplotlib takes a second to import: not before --help has been answered.
    from markupsafe import Markup

    from sia.gallery.of_study import gallery_of_study
    from sia.operate.track import keep_report
    from sia.report.write import write_report

    gallery = Markup("") if options.no_gallery else gallery_of_study(options.study)
    print(write_report(options.study, options.out, gallery))
    for line in keep_report(options.study) if options.out is None else ():
        print(line, file=sys.stderr)


if __name__ == "__main__":
    command.run(main)
