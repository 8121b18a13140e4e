"""Fill MLflow from the run folders: after its database was lost, or after the driver of a study died.

Twice is the same as once. A run that nobody trains any more is closed, with the reason in its tag `sia.ended`;
a submit that goes on with it opens it again. SIA_TRACKER=MODULE:CLASS fills another tracker than MLflow.
"""

import argparse
import sys
from typing import TYPE_CHECKING

from sia import command

if TYPE_CHECKING:
    from sia.operate.track import Tracked


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", nargs="*", help="studies; all of them without it")
    parser.add_argument("--uri", help="the store (default: $MLFLOW_TRACKING_URI, or mlflow.db of the repository)")
    return parser.parse_args()


def tell(tracked: "Tracked") -> int:
    """Say what was done, and what was left out; the exit status."""
    of = f" of {tracked.num_runs + tracked.num_left_out}" if tracked.num_left_out else ""
    done = f"{tracked.num_runs}{of} runs, {tracked.num_rows} rows, {tracked.num_closed} closed"
    print(f"{tracked.study}: {done}", flush=True)
    for trouble in tracked.troubles:
        print(f"error: {tracked.study}: {trouble}", file=sys.stderr)
    return 1 if tracked.troubles else 0


def main() -> int:
    arguments = parse()
    from sia.errors import UserError
    from sia.operate.track import track
    from sia.run.folder import runs_root, studies

    known = studies()
    chosen = arguments.study or known
    unknown = [study for study in chosen if study not in known]
    if unknown or not chosen:
        what = f"study {unknown[0]!r}" if unknown else "run"
        raise UserError(f"{runs_root()}: no {what} there; it has {', '.join(known) or 'none'}")
    return max([tell(track(study, arguments.uri)) for study in chosen])


if __name__ == "__main__":
    command.run(main)
