"""Delete old checkpoints by a policy, and what killed jobs and old submissions left behind.

Without a policy the best of each stage stays, and the last of unfinished runs and of a run's final stage. Runs that are
running or pending are left alone; so is what an unfinished run needs to go on. Every Nth epoch's weights go.
With --remove the named studies or runs go as a whole.
"""

import argparse
import sys

from sia import command


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
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
    return remove_whole(arguments) if arguments.remove else remove_old(arguments)


def remove_whole(arguments: argparse.Namespace) -> int:
    from sia.operate.confirm import confirmed
    from sia.operate.delete import in_gigabytes, remove_runs, whole_runs
    from sia.run.folder import find_runs

    groups = whole_runs([run for name in arguments.names for run in find_runs(name)])
    print(*(group.line for group in groups), sep="\n")
    count, runs = sum(len(group.files) for group in groups), sum(group.run is not None for group in groups)
    freed = sum(group.freed for group in groups)
    what = f"{count} files of {runs} runs"
    if arguments.dry_run:
        print(f"{what} would go and free {in_gigabytes(freed)}")
        return 0
    if not confirmed(arguments.yes, f"delete {what}, all they hold, and free {in_gigabytes(freed)}?"):
        return 1
    for folder in remove_runs(groups):
        print(f"{folder}: stays, for what else is in it", file=sys.stderr)
    print(f"{runs} runs deleted, {in_gigabytes(freed)} freed; MLflow keeps its rows: delete them there")
    return 0


def remove_old(arguments: argparse.Namespace) -> int:
    from sia.operate.confirm import confirmed
    from sia.operate.damage import readable
    from sia.operate.delete import in_gigabytes, remove, what_may_go
    from sia.operate.retention import Policy
    from sia.run.folder import find_runs, runs_of, studies

    policy = Policy.parse(arguments.keep, arguments.every)
    names = [run for name in arguments.names for run in find_runs(name)]
    runs, damaged = readable(names if arguments.names else [run for study in studies() for run in runs_of(study)])
    for line in damaged:
        print(line, file=sys.stderr)
    found = what_may_go(runs, policy, everything=not arguments.names)
    if not found:
        print("nothing to clean")
        return 0
    for group in found:
        print(group.line)
        if arguments.dry_run:
            print(*(f"  {path}" for path in group.relative), sep="\n")
    count, freed = sum(len(group.files) for group in found), sum(group.freed for group in found)
    if arguments.dry_run:
        print(f"{count} files would go and free {in_gigabytes(freed)}")
        return 0
    if not confirmed(arguments.yes, f"delete {count} files and free {in_gigabytes(freed)}?"):
        return 1
    gone, freed = remove(found, policy)
    print(f"{gone} files deleted, {in_gigabytes(freed)} freed")
    return 0


if __name__ == "__main__":
    command.run(main)
