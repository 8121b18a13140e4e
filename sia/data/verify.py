"""What is damaged in a prepared corpus: its shards against their checksums, its other files against the shards."""

import os
from collections.abc import Callable, Iterator
from concurrent.futures import as_completed
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

from sia.data.caption_index import LINES
from sia.data.corpus_record import DROPPED, Description, joined
from sia.data.prepare import read_plan
from sia.data.prepared_corpus import read_description
from sia.data.shards import DAMAGED, ShardReader, caption_digest, shard_path
from sia.errors import UserError, one_line
from sia.orphans import pool
from sia.progress import tracked


def verify_corpus(folder: Path, tell: Callable[[str], object] = print, processes: int | None = None) -> str:
    """Read every shard of a prepared corpus; what was found good, in one line.

    tell: told each fault, as it is found, in a line that names the file and the caption.
    processes: by default as many as cores; 0: read here, where damage may make HDF5 end the process.
    Raises UserError that counts the faults, where there are any.
    """
    description = read_description(folder)
    counted = 0
    for fault in _faults(folder, description, (os.cpu_count() or 1) if processes is None else processes):
        tell(fault)
        counted += 1
    if counted:
        faults = "1 fault" if counted == 1 else f"{counted} faults"
        raise UserError(f"{folder}: {faults}; delete what is named above and run `python jobs/prepare.py` again")
    return (
        f"{description.num_shards:,} shards, {sum(description.num_captions.values()):,} captions, "
        f"{description.num_images:,} images, {description.num_frames:,} frames: all good"
    )


def _faults(folder: Path, description: Description, processes: int) -> Iterator[str]:
    """Those of every shard; where there are none, of the files that were joined from the shards."""
    whole = True
    paths = [shard_path(folder, number) for number in range(description.num_shards)]
    for faults in tracked(_verified(paths, processes), "verify: shards", len(paths)):
        yield from faults
        whole = whole and not faults
    if whole:
        yield from _joined_faults(folder, description)


def _joined_faults(folder: Path, description: Description) -> Iterator[str]:
    """Where the files that were joined from the shards are not those that would be joined from them now."""
    copied = not (folder / "plan.json").exists()
    expected, captions, files = joined(folder, description if copied else read_plan(folder))
    if copied:  # What the reader dropped stayed with the plan.
        expected = expected.model_copy(update={"dropped": description.dropped})
        del files[DROPPED]
    for key, value in expected:
        if getattr(description, key) != value:
            yield f"{folder / 'corpus.json'}: its {key} is not that of the shards; run `python jobs/prepare.py` again"
    for name, content in files.items():
        found = (folder / name).read_bytes() if (folder / name).is_file() else None
        if found != content:
            held = set((found or b"").splitlines(keepends=True))
            lines = zip(captions, content.splitlines(keepends=True), strict=False) if name == LINES else ()
            different = [caption.utterance_id for caption, line in lines if line not in held]
            for utterance_id in different:
                yield f"{folder / name}: the record of {utterance_id!r} is not that of its shard"
            if not different:
                yield f"{folder / name}: missing, or not what the shards hold together"


def verify_shard(path: Path) -> list[str]:
    """Read a shard whole; its faults."""
    faults = []
    try:
        with ShardReader(path) as shard:
            row_of_image = {image_id: row for row, image_id in enumerate(shard.strings("image_ids"))}
            for row, (caption, digest) in enumerate(zip(shard.captions(), shard.strings("digests"), strict=True)):
                try:
                    image = shard.images.read(row_of_image[caption.image_id]).tobytes()
                    if caption_digest(caption, shard.frames.read(row), image) != digest:
                        raise ValueError("not what was written")
                except DAMAGED as error:
                    faults.append(f"{path}: caption {caption.utterance_id!r} cannot be read ({one_line(str(error))})")
            shard.check()
    except UserError as error:
        faults.append(str(error))
    except Exception as error:
        # Damaged bytes make HDF5, JSON and numpy raise whatever they may.
        faults.append(f"{path}: cannot be read ({one_line(str(error))})")
    return faults


def _verified(paths: list[Path], processes: int) -> Iterator[list[str]]:
    """The faults of each shard, as it is done."""
    if processes == 0:
        yield from map(verify_shard, paths)
        return
    with pool(max(1, min(processes, len(paths)))) as workers:
        futures = {workers.submit(verify_shard, path): path for path in paths}
        for future in as_completed(futures):
            try:
                yield future.result()
            except BrokenProcessPool:
                yield _verified_alone(futures[future])


def _verified_alone(path: Path) -> list[str]:
    """Verify a shard in a process of its own: the one that ended others is known then."""
    try:
        with pool(1) as workers:
            return workers.submit(verify_shard, path).result()
    except BrokenProcessPool:
        return [f"{path}: so damaged that HDF5 ends the process that reads it"]
