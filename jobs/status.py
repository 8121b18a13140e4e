"""List runs: their state, stage, epoch, job and best R@10."""

import argparse

from sia import command


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("study", nargs="?", help="one study; all of them without it")
    return parser.parse_args()


def main() -> None:
    arguments = parse()
    from sia.errors import UserError
    from sia.run_folder import runs_of, runs_root, studies
    from sia.sweep.watch import status_table

    chosen = [arguments.study] if arguments.study else studies()
    tables = [status_table(runs) for study in chosen if (runs := runs_of(study))]
    if not tables:
        what = f"study {arguments.study!r}" if arguments.study else "run"
        raise UserError(f"{runs_root()}: no {what} there; it has {', '.join(studies()) or 'none'}")
    console = command.console()
    for table in tables:
        console.print(table)


if __name__ == "__main__":
    command.run(main)
