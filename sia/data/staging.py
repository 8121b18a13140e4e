"""A prepared corpus copied to a node's own disk, which its ranks and loader workers then read. It loads no torch."""

import os
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from filelock import FileLock

from sia.data.prepared_corpus import read_description
from sia.errors import UserError

COPIES_AT_ONCE = 8
SPARE_BYTES = 1 << 30
MARKER = "corpus.json"  # copied last


def staged(corpus: Path, to: str) -> Path:
    """The corpus's folder below `to` (environment variables are filled in), copied there where it is not yet.

    One process of a node copies, the others wait for it; jobs of the same node and corpus share the copy. Where the
    disk has too little room, the corpus itself is returned, with a warning. Raises UserError for a `to` that is no
    absolute path.
    """
    description = read_description(corpus)
    target = _place(to) / f"sia-{os.getuid()}" / description["identity"]
    target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with FileLock(target.with_suffix(".lock")):
        files = _files(corpus)
        if (target / MARKER).is_file() and _is_whole(corpus, files, target, description):
            return target
        needed, free = sum(file.stat().st_size for file in files), shutil.disk_usage(target.parent).free
        if needed + SPARE_BYTES > free:
            problem = f"{needed / 1e9:.1f} GB do not fit into the {free / 1e9:.1f} GB free in {target.parent}"
            print(f"warning: {problem}; reading {corpus} instead", file=sys.stderr, flush=True)
            return corpus
        (target / MARKER).unlink(missing_ok=True)
        _copy(corpus, files, target)
        if read_description(corpus) != description:
            raise UserError(f"{corpus}: prepared anew while it was copied; submit the run again")
        os.replace(target / f".{MARKER}", target / MARKER)
    return target


def _is_whole(corpus: Path, files: list[Path], target: Path, description: dict[str, Any]) -> bool:
    """Whether a copy that was finished is one of the corpus as it is now; a file that was deleted is copied again."""
    copies = [target / file.relative_to(corpus) for file in files]
    same = all(
        copy.is_file() and copy.stat().st_size == file.stat().st_size for copy, file in zip(copies, files, strict=True)
    )
    return same and read_description(target) == description


def _place(to: str) -> Path:
    place = os.path.expandvars(to)
    if "$" in place or not os.path.isabs(place):
        raise UserError(f"stage_corpus_to {to!r} is {place!r} on this node; give an absolute path, such as $TMPDIR")
    return Path(place)


def _files(corpus: Path) -> list[Path]:
    """What training reads: not the plan, the raw corpus or the logs that may lie beside it."""
    return [*sorted(corpus.glob("captions*")), *sorted((corpus / "shards").glob("*.h5")), corpus / "dropped.jsonl"]


def _copy(corpus: Path, files: list[Path], target: Path) -> None:
    (target / "shards").mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(COPIES_AT_ONCE) as pool:
        list(pool.map(lambda file: shutil.copyfile(file, target / file.relative_to(corpus)), files))
    shutil.copyfile(corpus / MARKER, target / f".{MARKER}")
