"""What is damaged in a prepared corpus: its shards against their checksums, its captions against their places."""

import io
import json
import multiprocessing
import os
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from sia.data.caption_index import NUMBERS, Line, PlacedCaption, index_checksum, index_file, read_lines
from sia.data.corpus_record import count, describe, identity
from sia.data.manifest import SpokenCaption, read_dropped
from sia.data.prepare import joined, read_plan
from sia.data.prepared_corpus import read_description, shard_path
from sia.data.shards import ShardReader, caption_digest
from sia.errors import UserError
from sia.orphans import end_with
from sia.progress import tracked


class Verified(NamedTuple):
    """A shard's faults, and the digests that its captions' contents have."""

    faults: list[str]
    digests: list[str]


def verify_corpus(folder: Path, tell: Callable[[str], object] = print, processes: int | None = None) -> str:
    """Read every shard of a prepared corpus; what was found good, in one line.

    tell: told each fault, as it is found, in a line that names the file and the caption.
    processes: by default as many as cores; 0: read here, where damage may make HDF5 end the process.
    Raises UserError that counts the faults, where there are any.
    """
    description = read_description(folder)
    captions = list(read_lines(folder))
    counted = 0
    for fault in chain(
        corpus_faults(folder, description, captions), _shard_faults(folder, description, captions, processes)
    ):
        tell(fault)
        counted += 1
    if counted:
        faults = "1 fault" if counted == 1 else f"{counted} faults"
        raise UserError(f"{folder}: {faults}; delete what is named above and run `python jobs/prepare.py` again")
    return _all_good(description)


def _shard_faults(
    folder: Path, description: dict[str, Any], captions: list[tuple[PlacedCaption, Line]], processes: int | None
) -> Iterator[str]:
    """The faults of every shard; where it has none, whether the captions together are those of corpus.json."""
    num_shards, whole = description["num_shards"], True
    digests: list[str] = []
    tasks = _tasks(folder, description, [caption for caption, _ in captions])
    verified = _carried_out(tasks, (os.cpu_count() or 1) if processes is None else processes)
    for faults, found in tracked(verified, "verify: shards", num_shards):
        yield from faults
        digests += found
        whole = whole and not faults
    if whole and identity(description["features"], description["short_side"], digests) != description["identity"]:
        yield f"{folder / 'corpus.json'}: its identity is not that of the captions"
    if whole and (folder / "plan.json").exists():
        yield from _record_faults(folder, description, [caption for caption, _ in captions])


def _record_faults(folder: Path, description: dict[str, Any], placed: list[PlacedCaption]) -> Iterator[str]:
    """Where the files that were joined from the shards are not those that would be joined from them now."""
    plan = read_plan(folder)
    content = joined(folder, plan["num_shards"])
    # As JSON holds it: floats and keys as they are read back.
    expected = json.loads(json.dumps(describe(plan, content)))
    expected["checksums"] = {**description["checksums"], "shards": content.shard_checksums}
    for key, value in expected.items():
        if description.get(key) != value:
            yield f"{folder / 'corpus.json'}: its {key} is not that of the shards; run `python jobs/prepare.py` again"
    for listed, held in zip(placed, content.captions, strict=False):
        if listed != held:
            name = held.utterance_id
            yield f"{folder / 'captions.jsonl'}: the record of {name!r} is another one in its shard"
    if read_dropped(folder / "dropped.jsonl") != content.dropped:
        yield f"{folder / 'dropped.jsonl'}: missing, or not what was dropped"


def corpus_faults(
    folder: Path, description: dict[str, Any], captions: list[tuple[PlacedCaption, Line]]
) -> Iterator[str]:
    """Where corpus.json, captions.jsonl (its captions, and the bytes of their lines) and its index disagree."""
    placed = [caption for caption, _ in captions]
    found = {
        "num_captions": count(caption.split for caption in placed),
        "num_images": len({caption.image_id for caption in placed}),
        "num_frames": sum(caption.num_frames for caption in placed),
    }
    for key, value in found.items():
        if value != description[key]:
            yield f"{folder / 'captions.jsonl'}: {key} is {value} there, {description[key]} in corpus.json"
    beyond = {caption.shard for caption in placed} - set(range(description["num_shards"]))
    for shard in sorted(beyond):
        yield f"{folder / 'captions.jsonl'}: captions of shard {shard}, which is none of {description['num_shards']}"
    try:
        index = (folder / NUMBERS).read_bytes()
    except OSError:
        index = b""
    agree = index == index_file(placed, [line for _, line in captions])
    agree &= index_checksum(index) == description["checksums"]["index"]
    if not agree:
        yield f"{folder / NUMBERS}: missing, or not the index of captions.jsonl"


def verify_shard(folder: Path, number: int, placed: list[PlacedCaption], short_side: int | None) -> Verified:
    """Read a shard whole. placed: its captions by captions.jsonl; short_side: of its images, None for any."""
    path = shard_path(folder, number)
    try:
        reader = ShardReader(path)
    except UserError as error:
        return Verified([str(error)], [])
    with closing(reader) as shard:
        try:
            return _Verification(shard, placed, short_side).carried_out()
        except Exception as error:
            # Damaged bytes make HDF5, JSON and numpy raise whatever they may.
            said = " ".join(str(error).split())
            return Verified([said if isinstance(error, UserError) else f"{path}: cannot be read ({said})"], [])


class _Verification:
    """One shard's faults, from the coarse to the fine."""

    def __init__(self, shard: ShardReader, placed: list[PlacedCaption], short_side: int | None) -> None:
        self.shard, self.placed, self.short_side = shard, placed, short_side
        self.captions = [SpokenCaption(**json.loads(line)) for line in shard.strings("captions")]
        self.image_ids, self.digests = shard.strings("image_ids"), shard.strings("digests")

    def carried_out(self) -> Verified:
        digests: list[str] = []
        faults = [*self._offset_faults("frames"), *self._offset_faults("image_bytes"), *self._place_faults()]
        if not faults:
            faults = [*self._image_faults(), *self._caption_faults(digests)]
        told = [f"{self.shard.path}: {fault}" for fault in faults]
        try:
            self.shard.check()
        except UserError as error:
            told.append(str(error))
        return Verified(told, digests)

    def _offset_faults(self, name: str) -> Iterator[str]:
        """Rows that do not follow each other, or not to the end."""
        frames = name == "frames"
        offsets = self.shard.frame_offsets if frames else self.shard.image_offsets
        names = [caption.utterance_id for caption in self.captions] if frames else self.image_ids
        if len(offsets) != len(names) + 1 or len(self.digests) != len(self.captions):
            yield f"{len(names)} names for {len(offsets) - 1} places in {name}, {len(self.digests)} digests"
            return
        for row in np.flatnonzero(np.diff(offsets) < 0):
            yield f"the offset of {_named(frames, names[row])} in {name} lies after that of the next"
        if offsets[0] != 0 or offsets[-1] != len(self.shard.file[name]):
            yield f"the offsets in {name} do not cover it"

    def _place_faults(self) -> Iterator[str]:
        """Where captions.jsonl and the shard tell different things of a caption."""
        row_of_image = {image_id: row for row, image_id in enumerate(self.image_ids)}
        lengths = np.diff(self.shard.frame_offsets)
        listed = {caption.row: caption for caption in self.placed}
        for row, caption in enumerate(self.captions):
            place = listed.pop(row, None)
            held = (caption.utterance_id, caption.image_id, caption.split, row_of_image.get(caption.image_id))
            if place is None:
                yield f"caption {caption.utterance_id!r} has no line in captions.jsonl"
            elif (place.utterance_id, place.image_id, place.split, place.image_row) != held:
                yield f"caption {caption.utterance_id!r} is another one in captions.jsonl: {place.utterance_id!r}"
            elif row < len(lengths) and place.num_frames != lengths[row]:
                yield f"caption {caption.utterance_id!r}: {lengths[row]} frames, {place.num_frames} in captions.jsonl"
        for place in listed.values():
            yield f"caption {place.utterance_id!r} of captions.jsonl is not there"

    def _image_faults(self) -> Iterator[str]:
        """Images that no longer begin like one of their size; whether each byte is as it was, the digests tell."""
        for row, image_id in enumerate(self.image_ids):
            try:
                with Image.open(io.BytesIO(self.shard.stored_image(row).tobytes())) as image:
                    side = min(image.size)
            except (OSError, ValueError, SyntaxError):
                yield f"image {image_id!r} cannot be decoded"
            else:
                if self.short_side not in (None, side):
                    yield f"image {image_id!r} has a short side of {side}, not {self.short_side}"

    def _caption_faults(self, digests: list[str]) -> Iterator[str]:
        """Captions whose frames or image are not those that were written; their digests as they are now."""
        row_of_image = {image_id: row for row, image_id in enumerate(self.image_ids)}
        for row, caption in enumerate(self.captions):
            frames, image = self.shard.stored_frames(row), self.shard.stored_image(row_of_image[caption.image_id])
            if not np.isfinite(frames).all():
                yield f"caption {caption.utterance_id!r} has frames that are no numbers"
            digests.append(caption_digest(caption, frames, image.tobytes()))
            if digests[-1] != self.digests[row]:
                yield f"caption {caption.utterance_id!r}: its frames or its image are not those that were written"


def _named(caption: bool, name: str) -> str:
    return f"{'caption' if caption else 'image'} {name!r}"


Task = tuple[Path, int, list[PlacedCaption], int | None]


def _tasks(folder: Path, description: dict[str, Any], captions: list[PlacedCaption]) -> list[Task]:
    by_shard: dict[int, list[PlacedCaption]] = defaultdict(list)
    for caption in captions:
        by_shard[caption.shard].append(caption)
    return [
        (folder, number, by_shard[number], description["short_side"]) for number in range(description["num_shards"])
    ]


def _carried_out(tasks: list[Task], processes: int) -> Iterator[Verified]:
    """The verification of each shard, as it is done."""
    if processes == 0:
        yield from (verify_shard(*task) for task in tasks)
        return
    with _pool(max(1, min(processes, len(tasks)))) as pool:
        futures = {pool.submit(verify_shard, *task): task for task in tasks}
        for future in as_completed(futures):
            try:
                yield future.result()
            except BrokenProcessPool:
                yield _alone(futures[future])


def _alone(task: Task) -> Verified:
    """Verify a shard in a process of its own: the one that ended others is known then."""
    folder, number, *_ = task
    try:
        with _pool(1) as pool:
            return pool.submit(verify_shard, *task).result()
    except BrokenProcessPool:
        return Verified([f"{shard_path(folder, number)}: so damaged that HDF5 ends the process that reads it"], [])


def _pool(processes: int) -> ProcessPoolExecutor:
    # Not forked: the parent may hold threads and open files.
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(processes, context, initializer=end_with, initargs=(os.getpid(),))


def _all_good(description: dict[str, Any]) -> str:
    captions = sum(description["num_captions"].values())
    return (
        f"{description['num_shards']:,} shards, {captions:,} captions, {description['num_images']:,} images, "
        f"{description['num_frames']:,} frames: all good"
    )
