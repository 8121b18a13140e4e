"""The corpus `scenes`: made pictures of a few objects, each described in sentences that espeak-ng speaks.

It needs no download: it is made under its root the first time it is read, on all cores, and only read afterwards. It
lies in blocks, each a folder made by a fresh process and moved into place when it is whole.
"""

import json
import os
import pickle
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from sia.atomic import read_json, write_json
from sia.clock import age_seconds
from sia.data.corpora.scenes.plan import Block, plan_blocks
from sia.data.corpora.scenes.recipe import VERSION, Recipe
from sia.data.manifest import Reading, SpokenCaption, read_captions, write_captions
from sia.errors import UserError
from sia.progress import tracked

MARKER = "scenes.json"
CAPTIONS = "captions.jsonl"
UNFINISHED = ".making-"
ABANDONED_SECONDS = 600  # a block takes a few seconds; what is younger may belong to a process beside this one


def read(root: Path, recipe: Recipe | None = None) -> Reading:
    """The corpus under `root`, made first where its marker is not there.

    A generation that was killed is taken up where it stopped.
    Raises UserError for a root that cannot be written, or that holds scenes of another version or recipe.
    """
    recipe = recipe or Recipe()
    try:
        if not (root / MARKER).exists():
            _make(root, recipe)
        _check_marker(root / MARKER, recipe)
        captions, whole = read_captions(root / CAPTIONS), root.resolve()
    except OSError as error:
        cure = "give a folder that can be written, or delete it to make the corpus again"
        raise UserError(f"{error.filename or root}: {error.strerror or error}; {cure}") from None
    return Reading(
        [replace(c, speech_path=str(whole / c.speech_path), image_path=str(whole / c.image_path)) for c in captions], []
    )


def _check_marker(marker: Path, recipe: Recipe) -> None:
    try:
        found = read_json(marker) or {}
    except ValueError:
        found = {}
    if not _identity(recipe).items() <= found.items():
        raise UserError(
            f"{marker}: written for another version or recipe of scenes (this is version {VERSION}); "
            f"delete the folder {marker.parent} to make the corpus again, or give another with --root"
        )


def _identity(recipe: Recipe) -> dict[str, Any]:
    """What a marker must say for the corpus to be this recipe's, in JSON's types."""
    return {"version": VERSION, "recipe": json.loads(json.dumps(asdict(recipe)))}


def _make(root: Path, recipe: Recipe) -> None:
    """Blocks, as many at once as there are cores, then the captions, then the marker: who finds it finds everything."""
    root.mkdir(parents=True, exist_ok=True)
    for folder in root.glob(f"{UNFINISHED}*"):
        if age_seconds(folder) > ABANDONED_SECONDS:
            shutil.rmtree(folder, ignore_errors=True)
    blocks = plan_blocks(recipe)
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        list(tracked(threads.map(partial(_make_block, root), blocks), "scenes: blocks", len(blocks)))
    captions = [caption for block in blocks for caption in _captions(block)]
    write_captions(root / CAPTIONS, captions)
    write_json(root / MARKER, _identity(recipe))


def _make_block(root: Path, block: Block) -> None:
    folder = root / block.name
    if _is_whole(folder, block):
        return
    with TemporaryDirectory(prefix=UNFINISHED, dir=root) as temporary:
        made = Path(temporary) / block.name
        made.mkdir()
        # Not multiprocessing: its spawn runs the caller's main module again, which a notebook or a stdin script lacks.
        maker = [sys.executable, "-m", "sia.data.corpora.scenes", str(made)]
        finished = subprocess.run(maker, input=pickle.dumps(block), capture_output=True, check=False)
        if finished.returncode != 0:
            lines = finished.stderr.decode().strip().splitlines() or [f"exit status {finished.returncode}"]
            raise UserError(f"{root}: {block.name} of scenes could not be made: {lines[-1]}")
        shutil.rmtree(folder, ignore_errors=True)
        try:
            made.rename(folder)
        except OSError:
            if not _is_whole(folder, block):  # another process, which makes the same corpus, may have been faster
                raise


def _is_whole(folder: Path, block: Block) -> bool:
    """Whether every file is there. Each is whole, for the folder was moved into place after all were written."""
    return all((folder / name).is_file() for name in block.file_names)


def _captions(block: Block) -> list[SpokenCaption]:
    """The block's captions, with paths relative to the root."""
    return [
        SpokenCaption(
            utterance_id=utterance.utterance_id,
            image_id=planned.image_id,
            speech_path=f"{block.name}/{utterance.file_name}",
            image_path=f"{block.name}/{planned.file_name}",
            split=planned.split,
            speaker=utterance.speaker,
            language="en",
            text=utterance.text,
        )
        for planned in block.scenes
        for utterance in planned.utterances
    ]
