"""Fill the tracker from the run folders: after its store was lost, or after the driver of a study died.

Twice is the same as once. A run that nobody trains any more is closed, with the reason in its tag `sia.ended`;
a submit that goes on with it opens it again. That is MLflow, or what
SIA_TRACKER=MODULE:CLASS names.

examples:
  python jobs/track.py size-miniature
"""

import sys

from sia import command


def main() -> int:
    parser = command.parser(__doc__)
    parser.add_argument("study", nargs="*", help="studies; all of them without it")
    parser.add_argument("--uri", help="the store (default: $MLFLOW_TRACKING_URI, or mlflow.db of the repository)")
    arguments = parser.parse_args()
    from sia.errors import UserError
    from sia.operate.track import track
    from sia.run.folder import is_rehearsal, runs_root, studies

    known = [study for study in studies() if not is_rehearsal(study)]
    chosen = arguments.study or known
    if not chosen:
        raise UserError(f"{runs_root()}: no run there; it has none")
    status = 0
    for study in chosen:
        done = track(study, arguments.uri)
        if study not in known and not done.num_gone:
            raise UserError(f"{runs_root()}: no study {study!r} there; it has {', '.join(known) or 'none'}")
        of = f" of {done.num_runs + done.num_new + done.num_left_out}" if done.num_left_out else ""
        new = f", {done.num_new} not begun" if done.num_new else ""
        gone = f", {done.num_gone} closed whose folders are gone" if done.num_gone else ""
        print(
            f"{study}: {done.num_runs}{of} runs, {done.num_rows} rows, {done.num_closed} closed{new}{gone}", flush=True
        )
        for trouble in done.troubles:
            print(f"error: {study}: {trouble}", file=sys.stderr)
            status = 1
    return status


if __name__ == "__main__":
    command.run(main)
