"""Search images by a spoken query, or recordings by an image.

examples:
  python jobs/search.py DG2A32 --speech query.wav --images photos --top 10
"""

import argparse
import json
import sys
from pathlib import Path

from sia import command


def parse() -> argparse.Namespace:
    parser = command.parser(__doc__)
    parser.add_argument("run", help="a run's folder or name, or an exported folder")
    parser.add_argument("--speech", type=Path, metavar="FILE", help="the query: a wav, flac or ogg file")
    parser.add_argument("--image", type=Path, metavar="FILE", help="the query: an image file")
    parser.add_argument("--images", type=Path, metavar="DIR", help="what --speech searches: images, or a corpus")
    parser.add_argument("--captions", type=Path, metavar="DIR", help="what --image searches: recordings, or a corpus")
    parser.add_argument("--split", choices=("train", "validation", "test"), help="of a prepared corpus; default: all")
    parser.add_argument("--top", type=int, default=10, metavar="N", help="so many results (default: 10)")
    parser.add_argument("--checkpoint", default="best", metavar="best|last|epoch=N")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser.parse_args()


def main() -> None:
    arguments = parse()
    from sia.checkpoint.chosen import choose_checkpoint
    from sia.errors import UsageError, UserError
    from sia.inference.settings import is_export
    from sia.run.folder import find_run

    given = [name for name in ("speech", "images", "image", "captions") if getattr(arguments, name) is not None]
    if given not in (["speech", "images"], ["image", "captions"]):
        flags = ", ".join(f"--{name}" for name in given) or "none of them"
        raise UsageError(f"give --speech with --images, or --image with --captions; there is {flags}")
    command.check_counts(arguments, "top")
    query, folder = arguments.speech or arguments.image, arguments.images or arguments.captions
    if not query.is_file():
        raise UserError(f"{query}: no such file; give the file to search by with --{given[0]}")
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; give a folder of files, or of a prepared corpus")
    if not is_export(Path(arguments.run)):
        choose_checkpoint(find_run(arguments.run), arguments.checkpoint)
    # These load torch: not before the arguments are known to make sense.
    from sia.inference.load import load
    from sia.inference.search import captions_of, images_of

    pair = load(arguments.run, arguments.checkpoint)
    embedded = pair.embed_speech(query) if arguments.speech else pair.embed_image(query)
    collection = (images_of if arguments.speech else captions_of)(pair, folder, arguments.split)
    for line in collection.skipped:
        print(f"skipped: {line}", file=sys.stderr)
    hits = collection.nearest(embedded, arguments.top)
    if arguments.json:
        print(json.dumps({"searched": len(collection.names), "results": [hit._asdict() for hit in hits]}))
        return
    for hit in hits:
        print(f"{hit.rank:4}  {hit.similarity:7.4f}  {hit.name}{'  ' if hit.text else ''}{hit.text}")


if __name__ == "__main__":
    command.run(main)
