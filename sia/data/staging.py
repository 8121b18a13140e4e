"""A prepared corpus copied to a node's own disk, which its ranks and loader workers then read. It loads no torch."""

import os
import shutil
import sys
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from filelock import FileLock

from sia.data.prepared_corpus import read_description
from sia.errors import UserError

COPIES_AT_ONCE = 8
SPARE_BYTES = 1 << 30
MARKER = "corpus.json"  # copied last


def staged(corpus: Path, to: str, again: str = "submit it again") -> Path:
    """The corpus's folder below `to` (environment variables are filled in), copied there where it is not yet.

    One process of a node copies, the others wait for it; jobs of the same node and corpus share the copy. Where the
    disk has too little room, the corpus itself is returned, with a warning. Raises UserError for a `to` that is no
    absolute path.
    """
    place = os.path.expandvars(to)
    if "$" in place or not os.path.isabs(place):
        raise UserError(f"stage_corpus_to {to!r} is {place!r} on this node; give an absolute path, such as $TMPDIR")
    description = read_description(corpus)
    target = Path(place) / f"sia-{os.getuid()}" / description.identity
    target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with FileLock(target.with_suffix(".lock")):
        copies = _copies(corpus, target)
        sizes = _sizes(copies)
        same = (target / MARKER).is_file() and sizes == _sizes(copies.values())
        if same and read_description(target) == description:
            return target
        needed, free = sum(sizes), shutil.disk_usage(target.parent).free
        if needed + SPARE_BYTES > free:
            problem = f"{needed / 1e9:.1f} GB do not fit into the {free / 1e9:.1f} GB free in {target.parent}"
            print(f"warning: {problem}; reading {corpus} instead", file=sys.stderr, flush=True)
            return corpus
        (target / MARKER).unlink(missing_ok=True)
        (target / "shards").mkdir(parents=True, exist_ok=True)
        with ThreadPoolExecutor(COPIES_AT_ONCE) as pool:
            list(pool.map(shutil.copyfile, copies, copies.values()))
        shutil.copyfile(corpus / MARKER, target / f".{MARKER}")
        if read_description(corpus) != description:
            raise UserError(f"{corpus}: prepared anew while it was copied; to go on: {again}")
        os.replace(target / f".{MARKER}", target / MARKER)
    return target


def _copies(corpus: Path, target: Path) -> dict[Path, Path]:
    """What training reads, and where it is copied to: not the plan, the raw corpus or logs that may lie beside it."""
    files = [*corpus.glob("captions*"), *(corpus / "shards").glob("*.h5"), corpus / "dropped.jsonl"]
    return {file: target / file.relative_to(corpus) for file in files}


def _sizes(files: Iterable[Path]) -> list[int]:
    """In bytes; -1 of one that was deleted."""
    return [file.stat().st_size if file.is_file() else -1 for file in files]
