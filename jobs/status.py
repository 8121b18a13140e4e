"""List runs: their state, stage, epoch, job and best R@10, and who drives each study.

examples:
  python jobs/status.py size-miniature --watch
"""

import argparse
import contextlib
import json
import sys
import threading

from sia import command


def parse() -> argparse.Namespace:
    parser = command.parser(__doc__)
    parser.add_argument("study", nargs="?", help="one study; all of them without it")
    parser.add_argument(
        "--watch", nargs="?", type=float, const=2.0, metavar="SECONDS", help="show it anew until Ctrl-C (default: 2)"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    arguments = parser.parse_args()
    if arguments.json and arguments.watch is not None:
        parser.error("--json prints once: leave --watch out")
    if arguments.watch is not None and not arguments.watch > 0:
        parser.error(f"--watch {arguments.watch:g}: give more than 0 seconds")
    return arguments


def main() -> int:
    arguments = parse()
    from sia.errors import UserError
    from sia.operate.status import SLURM_IS_SILENT, all_studies, slurm_is_silent, study_views
    from sia.operate.watch import print_studies, watch_studies
    from sia.run.folder import runs_root, studies

    chosen = [arguments.study] if arguments.study else None
    found = study_views(chosen or all_studies())
    if not found:
        what = f"study {arguments.study!r}" if arguments.study else "run"
        raise UserError(f"{runs_root()}: no {what} there; it has {', '.join(studies()) or 'none'}")
    if slurm_is_silent() and not (arguments.watch and sys.stdout.isatty()):  # the live display says it itself
        print(SLURM_IS_SILENT, file=sys.stderr)
    if arguments.json:
        print(json.dumps([study.as_json() for study in found], ensure_ascii=False))
    elif arguments.watch is None:
        print_studies(found, command.console())
    else:
        with contextlib.suppress(KeyboardInterrupt):
            never = threading.Event()
            watch_studies(lambda: study_views(chosen or all_studies()), lambda: never.wait(arguments.watch))
    return 0


if __name__ == "__main__":
    command.run(main)
