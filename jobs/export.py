"""Export a run's checkpoint: model.safetensors and config.json, and the same as a model in MLflow (or another tracker).

examples:
  python jobs/export.py DG2A32
"""

import argparse
from pathlib import Path

from sia import command


def main() -> None:
    parser = command.parser(__doc__)
    parser.add_argument("run", help="a run's folder, or its name as jobs/status.py lists it")
    parser.add_argument("--checkpoint", default="best", metavar="best|last|epoch=N")
    parser.add_argument("--out", type=Path, metavar="DIR", help="default: RUN/exports/epoch-N")
    parser.add_argument(
        "--mlflow", action=argparse.BooleanOptionalAction, default=True, help="log it to the tracker too (default)"
    )
    arguments = parser.parse_args()
    from sia.checkpoint.chosen import choose_checkpoint
    from sia.inference.pair_settings import check_export_folder
    from sia.progress import waiting
    from sia.run.folder import find_run
    from sia.trackers.tracker import tracker_of

    run = find_run(arguments.run)
    chosen = choose_checkpoint(run, arguments.checkpoint)
    out = arguments.out or run.path / "exports" / f"epoch-{chosen.epoch:04d}"
    check_export_folder(out)
    # They load torch: not before run and folder are known to do.
    from sia.inference.load import load_run, write_export

    with waiting(f"exporting {run.name}"):
        pair = load_run(run, arguments.checkpoint, "cpu")
        write_export(pair, out)
    print(f"{out}: epoch {chosen.epoch} of {run.name}; sia.load({str(out)!r}) reads it")
    if arguments.mlflow:
        columns = ("speech", "image") if pair.embeds_recordings else ("image",)
        tracker = tracker_of(run.study)
        with waiting(f"logging it to {tracker.name}"):
            lines = tracker.log_export(run, out, columns)
        for line in lines:
            print(line)


if __name__ == "__main__":
    command.run(main)
