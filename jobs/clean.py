"""Delete old checkpoints by a policy, and what killed jobs and old submissions left behind.

Without a policy the best of each stage stays, and the last of unfinished runs and of a run's final stage. Runs that are
running or pending are left alone; so is what an unfinished run needs to go on. Every Nth epoch's weights go.
With --remove the named studies or runs go as a whole.

examples:
  python jobs/clean.py size-miniature --dry-run
  python jobs/clean.py size-miniature --keep best --every 20
  python jobs/clean.py size-miniature --remove
"""

import argparse
import sys

from sia import command


def parse() -> argparse.Namespace:
    parser = command.parser(__doc__)
    parser.add_argument("names", nargs="*", metavar="STUDY|RUN", help="studies or runs; everything without them")
    parser.add_argument("--keep", metavar="best,last", help="of every stage: best, last or both")
    parser.add_argument("--every", type=int, metavar="N", help="also keep every Nth epoch's weights")
    parser.add_argument("--remove", action="store_true", help="delete the named studies or runs, all of their files")
    parser.add_argument("--dry-run", action="store_true", help="list what would go; deletes nothing")
    parser.add_argument("--yes", action="store_true", help="do it without asking")
    arguments = parser.parse_args()
    if arguments.remove and (not arguments.names or arguments.keep or arguments.every):
        parser.error("--remove: name the studies or runs to delete, without --keep and --every")
    return arguments


def main() -> int:
    arguments = parse()
    from sia.operate.clean import in_gigabytes, remove, remove_runs, what_may_go, whole_runs
    from sia.operate.damage import readable
    from sia.operate.retention import Policy
    from sia.run.folder import find_runs, runs_of
    from sia.trackers.tracker import tracker_of

    policy = Policy.parse(arguments.keep, arguments.every)
    runs = [run for name in arguments.names for run in find_runs(name)] if arguments.names else runs_of()
    if arguments.remove:
        groups = whole_runs(runs)
    else:
        runs, damaged = readable(runs)
        for line in damaged:
            print(line, file=sys.stderr)
        groups = what_may_go(runs, policy, everything=not arguments.names)
    if not groups:
        print("nothing to clean")
        return 0
    for group in groups:
        print(group.line)
        if arguments.dry_run and not arguments.remove:
            print(*(f"  {path.relative_to(group.base)}" for path in group.paths), sep="\n")
    freed = in_gigabytes(sum(group.freed for group in groups))
    num_runs = sum(group.run is not None for group in groups)
    what = f"{sum(len(group.files) for group in groups)} files" + f" of {num_runs} runs" * arguments.remove
    if arguments.dry_run:
        print(f"{what} would go and free {freed}")
        return 0
    if not command.confirmed(arguments.yes, f"delete {what}{', all they hold,' * arguments.remove} and free {freed}?"):
        return 1
    if arguments.remove:
        removed = [group.run for group in groups if group.run is not None]
        held = [one for one in map(tracker_of, {run.study for run in removed}) if one.how_to_open(removed)]
        for folder in remove_runs(groups):
            print(f"{folder}: stays, for what else is in it", file=sys.stderr)
        closed = sum(tracker.close_gone() for tracker in held)
        open_ones = f", of which {closed} were open and are closed" if closed else ""
        keeps = f"{tracker_of().name} keeps its rows{open_ones}: delete them there"
        print(f"{num_runs} runs deleted, {freed} freed; {keeps}")
        for line in (line for one in held for line in one.told("python jobs/track.py closes what is open in it")):
            print(line, file=sys.stderr)
    else:
        count, size = remove(groups, policy)
        print(f"{count} files deleted, {in_gigabytes(size)} freed")
    return 0


if __name__ == "__main__":
    command.run(main)
