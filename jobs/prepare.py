"""Prepare a corpus for training, MFCC frames and images in HDF5 shards, or verify one that was prepared.

examples:
  python jobs/prepare.py --root birds/captions.csv --out corpora/birds
  python jobs/prepare.py --corpus places205 --root /data/places --out corpora/places205 --cluster slurm
  python jobs/prepare.py --out corpora/birds --verify
"""

import argparse
from pathlib import Path

from sia import command

ALLOW = "a folder, beside the root, that a table may name files of; repeatable"


def main() -> None:
    from sia.data.corpora import READERS

    parser = command.parser(__doc__)
    parser.add_argument("--corpus", help=f"the reader of what lies there: {', '.join(READERS)} (default: table)")
    parser.add_argument("--root", type=Path, help="the corpus's folder, or a table; of scenes, where it is made")
    parser.add_argument("--out", type=Path, required=True, help="the prepared corpus's folder")
    parser.add_argument("--shards", type=int, help="number of shards and tasks (default: one for 1000 captions)")
    parser.add_argument("--images", choices=("resized", "original"), default="resized", help="original: files as is")
    parser.add_argument("--image-short-side", type=int, default=256, metavar="PIXELS")
    parser.add_argument("--limit", type=int, help="so many captions only, for a first try")
    parser.add_argument("--allow", type=Path, action="append", default=[], metavar="DIR", help=ALLOW)
    parser.add_argument("--replace", action="store_true", help="change a finished corpus in OUT, though runs use it")
    parser.add_argument("--cluster", choices=("auto", "local", "slurm"), default="local")
    parser.add_argument("--profile", type=Path, help="resources of a task on Slurm (slurm/*.yaml)")
    parser.add_argument("--verify", action="store_true", help="read OUT's shards and tell what is damaged in them")
    arguments = parser.parse_args()
    if arguments.verify:
        from sia.data.verify import verify_corpus

        print(verify_corpus(arguments.out))
    else:
        prepare(arguments)


def prepare(arguments: argparse.Namespace) -> None:
    from sia.cluster.corpus_jobs import prepare_corpus
    from sia.cluster.profile import choose_cluster, load_profile
    from sia.errors import UsageError

    if arguments.corpus is None and arguments.root is None:
        raise UsageError("--corpus is missing; name the corpus, give --root TABLE.csv, or --verify to check --out")
    command.check_counts(arguments, "shards", "image_short_side", "limit")
    prepared = prepare_corpus(
        arguments.corpus or "table",
        arguments.root,
        arguments.out,
        short_side=arguments.image_short_side,
        images=arguments.images,
        num_shards=arguments.shards,
        limit=arguments.limit,
        cluster=choose_cluster(arguments.cluster),
        profile=load_profile(arguments.profile),
        allowed=arguments.allow,
        replace=arguments.replace,
    )
    print(prepared.summary())


if __name__ == "__main__":
    command.run(main)
