"""End a study (its driver, then its jobs), or one run. Jobs save a checkpoint; a later submit goes on from it.

examples:
  python jobs/cancel.py size-miniature
  python jobs/cancel.py DG3A32 --yes
"""

import sys

from sia import command


def main() -> int:
    parser = command.parser(__doc__)
    parser.add_argument("name", metavar="STUDY|RUN", help="a study, or a run as jobs/status.py lists it")
    parser.add_argument("--yes", action="store_true", help="do it without asking")
    arguments = parser.parse_args()
    from sia.operate.cancel import end, ending_of_run, ending_of_study
    from sia.operate.track import close
    from sia.run.folder import find_run, is_study, runs_of

    name = arguments.name
    ending = ending_of_study(name, runs_of(name)) if is_study(name) else ending_of_run(find_run(name))
    for line in ending.damaged:
        print(line, file=sys.stderr)
    if not ending:
        print(f"{name}: nothing is under way")
        return 1 if ending.damaged else 0
    print("to be ended:", *ending.lines, sep="\n  ")
    if not command.confirmed(arguments.yes, "end all of these?"):
        return 1
    ended = end(ending, lambda line: print(line, flush=True))
    for study in {run.study for run in ending.runs}:
        for line in close(study, runs_of(study)):
            print(line, file=sys.stderr)
    if not ended:
        print("error: not everything has ended", file=sys.stderr)
    return 0 if ended and not ending.damaged else 1


if __name__ == "__main__":
    command.run(main)
