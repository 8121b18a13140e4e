"""Embed a split with a run's checkpoint, into one HDF5 file for analysis elsewhere.

examples:
  python jobs/embed.py DG2A32 --split test --layer gru1
"""

from pathlib import Path

from sia import command


def main() -> None:
    parser = command.parser(__doc__)
    parser.add_argument("run", help="a run's folder, or its name as jobs/status.py lists it")
    parser.add_argument("--checkpoint", default="best", metavar="best|last|epoch=N")
    parser.add_argument("--split", choices=("train", "validation", "test"), default="test")
    parser.add_argument("--corpus", type=Path, metavar="DIR", help="another prepared corpus than the run's own")
    parser.add_argument("--layer", metavar="conv|gru1..gruN", help="also the speech encoder's states over time there")
    parser.add_argument("--out", type=Path, metavar="FILE", help="default: RUN/embeddings/SPLIT-epoch-N.h5")
    arguments = parser.parse_args()
    from sia.checkpoint.chosen import choose_checkpoint
    from sia.data.prepared_corpus import check_identity, read_description
    from sia.errors import UsageError
    from sia.inference.pair_settings import depth_of
    from sia.run.folder import find_run
    from sia.run.records import TrainedOn

    run = find_run(arguments.run)
    experiment = run.experiment()
    chosen = choose_checkpoint(run, arguments.checkpoint)
    if arguments.layer is not None:
        depth_of(arguments.layer, experiment.model.gru_layers)
    folder = arguments.corpus or experiment.data.path
    description = read_description(folder, experiment.data.corpus)
    if arguments.corpus is None:
        check_identity(folder, description, TrainedOn.read(run.corpus), run.path)
    if arguments.out is not None and arguments.out.is_dir():
        raise UsageError(f"--out {arguments.out}: a folder; give the path of a file in it")
    layer = f"-{arguments.layer}" if arguments.layer else ""
    out = arguments.out or run.path / "embeddings" / f"{arguments.split}-epoch-{chosen.epoch:04d}{layer}.h5"
    # They load torch: not before the arguments are known to make sense.
    from sia.inference.embedding_file import write_embeddings
    from sia.inference.load import load_run

    pair = load_run(run, arguments.checkpoint)
    rows = write_embeddings(pair, folder, arguments.split, out, arguments.layer)
    print(f"{out}: " + ", ".join(f"{count:,} {name}" for name, count in rows.items()) + f" of epoch {chosen.epoch}")


if __name__ == "__main__":
    command.run(main)
