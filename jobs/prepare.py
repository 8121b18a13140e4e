"""Prepare a corpus for training: MFCC frames and resized images in HDF5 shards."""

import argparse
from pathlib import Path

from sia import command


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--corpus", required=True, help="places205, scenes (made here) or stamps")
    parser.add_argument("--root", type=Path, help="where the corpus lies; for scenes, where it is made (OUT/raw)")
    parser.add_argument("--out", type=Path, required=True, help="the prepared corpus's folder")
    parser.add_argument("--shards", type=int, help="number of shards and tasks (default: one for 1000 captions)")
    parser.add_argument("--image-short-side", type=int, default=256, metavar="PIXELS")
    parser.add_argument("--limit", type=int, help="about so many captions only, for a first try")
    parser.add_argument("--cluster", choices=("auto", "local", "slurm"), default="local")
    parser.add_argument("--profile", type=Path, help="resources of a task on Slurm (slurm/*.yaml)")
    return parser.parse_args()


def main() -> None:
    arguments = parse()
    from sia.cluster.prepare import prepare_corpus
    from sia.cluster.profile import choose_cluster, load_profile
    from sia.data.prepare import summary
    from sia.errors import UsageError

    for name in ("shards", "image_short_side", "limit"):
        if (value := getattr(arguments, name)) is not None and value < 1:
            raise UsageError(f"--{name.replace('_', '-')} {value}: give 1 or more")
    description = prepare_corpus(
        arguments.corpus,
        arguments.root,
        arguments.out,
        short_side=arguments.image_short_side,
        num_shards=arguments.shards,
        limit=arguments.limit,
        cluster=choose_cluster(arguments.cluster),
        profile=load_profile(arguments.profile),
    )
    print(summary(description))


if __name__ == "__main__":
    command.run(main)
