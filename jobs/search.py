"""Search images by a spoken query, or recordings by an image; with --serve, in a page that asks for either.

examples:
  python jobs/search.py DG2A32 --speech query.wav --images photos --html found.html
  python jobs/search.py DG2A32 --serve --images photos --captions recordings
"""

import argparse
import json
from pathlib import Path

from sia import command

ASKED = "--speech with --images, or --image with --captions", (["speech", "images"], ["image", "captions"])
SERVED = "--images, --captions or both", (["images"], ["captions"], ["images", "captions"])


def parse() -> argparse.Namespace:
    parser = command.parser(__doc__)
    parser.add_argument("run", help="a run's folder or name, or an exported folder")
    parser.add_argument("--speech", type=Path, metavar="FILE", help="the query: a wav, flac, ogg or mp3 file")
    parser.add_argument("--image", type=Path, metavar="FILE", help="the query: an image file")
    parser.add_argument("--images", type=Path, metavar="DIR", help="what --speech searches: images, or a corpus")
    parser.add_argument("--captions", type=Path, metavar="DIR", help="what --image searches: recordings, or a corpus")
    parser.add_argument("--split", choices=("train", "validation", "test"), help="of a prepared corpus; default: all")
    parser.add_argument("--top", type=int, default=10, metavar="N", help="so many results (default: 10)")
    parser.add_argument("--checkpoint", default="best", metavar="best|last|epoch=N")
    shown = parser.add_mutually_exclusive_group()
    shown.add_argument("--json", action="store_true", help="print one JSON object")
    shown.add_argument("--html", type=Path, metavar="FILE", help="write what was found as one page to see and hear")
    shown.add_argument("--serve", action="store_true", help="a local page that searches --images, --captions or both")
    parser.add_argument("--port", type=int, default=8765, help="of --serve (default: 8765; 0: any free one)")
    return parser.parse_args()


def main() -> None:
    arguments = parse()
    check(arguments)
    # They load torch: not before the arguments are known to make sense.
    (serve if arguments.serve else search)(arguments)


def check(arguments: argparse.Namespace) -> None:
    from sia.checkpoint.chosen import choose_checkpoint
    from sia.errors import UsageError, UserError
    from sia.inference.pair_settings import is_export
    from sia.run.folder import find_run

    given = [name for name in ("speech", "images", "image", "captions") if getattr(arguments, name) is not None]
    wanted, fitting = SERVED if arguments.serve else ASKED
    if given not in fitting:
        raise UsageError(f"give {wanted}; there is {', '.join(f'--{name}' for name in given) or 'none of them'}")
    command.check_counts(arguments, "top")
    for path, name in ((getattr(arguments, name), name) for name in given):
        if name in ("speech", "image") and not path.is_file():
            raise UserError(f"{path}: no such file; give the file to search by with --{name}")
        if name in ("images", "captions") and not path.is_dir():
            raise UserError(f"{path}: no such folder; give a folder of files, or of a prepared corpus")
    if arguments.html and arguments.html.is_dir():
        raise UsageError(f"--html {arguments.html}: a folder; give the file that the page is to be")
    if not is_export(Path(arguments.run)):
        choose_checkpoint(find_run(arguments.run), arguments.checkpoint)


def serve(arguments: argparse.Namespace) -> None:
    from sia.gallery.serve import listening, serve
    from sia.inference.load import load
    from sia.inference.search import collections_of

    bound, pair = listening(arguments.port), load(arguments.run, arguments.checkpoint)
    collections = collections_of(pair, arguments.images, arguments.captions, arguments.split, served=True, quiet=False)
    serve(pair, collections, arguments.top, arguments.run, bound)


def search(arguments: argparse.Namespace) -> None:
    from sia.inference.load import load
    from sia.inference.search import collections_of

    pair, query = load(arguments.run, arguments.checkpoint), arguments.speech or arguments.image
    embedded = pair.embed_speech(query) if arguments.speech else pair.embed_image(query)
    found = collections_of(pair, arguments.images, arguments.captions, arguments.split, quiet=arguments.json)
    ((kind, collection),) = found.items()
    hits = collection.nearest(embedded, arguments.top)
    if arguments.json:
        print(json.dumps({"searched": len(collection.names), "results": [hit._asdict() for hit in hits]}))
    elif arguments.html:
        from sia.gallery.searched import answer_of, write_contact_sheet

        answer = answer_of(pair, kind, collection, query, arguments.top, query.name)
        print(write_contact_sheet(arguments.html, answer, arguments.run))
    else:
        print(*(f"{one.rank:4}  {one.similarity:7.4f}  {f'{one.name}  {one.text}'.strip()}" for one in hits), sep="\n")


if __name__ == "__main__":
    command.run(main)
