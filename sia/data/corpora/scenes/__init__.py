"""The corpus `scenes`: made pictures of a few objects, each described in sentences that espeak-ng speaks.

It needs no download: it is made under its root the first time it is read, on all cores, and only read afterwards.
"""

from collections import Counter
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from sia.atomic import read_json, write_json
from sia.data.corpora.scenes.blocks import make_blocks
from sia.data.corpora.scenes.plan import Block, image_name, plan_blocks, speech_name
from sia.data.corpora.scenes.recipe import VERSION, Recipe
from sia.data.manifest import Reading, SpokenCaption, read_captions, write_captions
from sia.errors import UserError

MARKER = "scenes.json"
CAPTIONS = "captions.jsonl"


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
        return Reading([_below(root, caption) for caption in read_captions(root / CAPTIONS)], [])
    except OSError as error:
        cure = "give a folder that can be written, or delete it to make the corpus again"
        raise UserError(f"{error.filename or root}: {error.strerror or error}; {cure}") from None


def _make(root: Path, recipe: Recipe) -> None:
    """Blocks, then the captions, then the marker: who finds the marker finds everything."""
    blocks = plan_blocks(recipe)
    make_blocks(root, blocks)
    captions = [caption for block in blocks for caption in _captions(block)]
    write_captions(root / CAPTIONS, captions)
    write_json(root / MARKER, {**_identity(recipe), "counts": _counts(captions)})


def _identity(recipe: Recipe) -> dict[str, Any]:
    """What a marker must say for the corpus to be this recipe's, in JSON's types."""
    values = {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(recipe).items()}
    return {"version": VERSION, "recipe": values}


def _check_marker(marker: Path, recipe: Recipe) -> None:
    try:
        found = read_json(marker)
    except ValueError:
        found = None
    same = isinstance(found, dict) and _identity(recipe).items() <= found.items()
    if not same:
        raise UserError(
            f"{marker}: written for another version or recipe of scenes (this is version {VERSION}); "
            f"delete the folder {marker.parent} to make the corpus again, or give another with --root"
        )


def _captions(block: Block) -> list[SpokenCaption]:
    """The block's captions, with paths relative to the root."""
    return [
        SpokenCaption(
            utterance_id=utterance.utterance_id,
            image_id=planned.image_id,
            speech_path=f"{block.name}/{speech_name(utterance)}",
            image_path=f"{block.name}/{image_name(planned)}",
            split=planned.split,
            speaker=utterance.speaker,
            language="en",
            text=utterance.text,
        )
        for planned in block.scenes
        for utterance in planned.utterances
    ]


def _counts(captions: list[SpokenCaption]) -> dict[str, dict[str, int]]:
    images = Counter(split for split, _ in {(caption.split, caption.image_id) for caption in captions})
    spoken = Counter(caption.split for caption in captions)
    return {split: {"images": images[split], "captions": spoken[split]} for split in spoken}


def _below(root: Path, caption: SpokenCaption) -> SpokenCaption:
    speech, image = root.resolve() / caption.speech_path, root.resolve() / caption.image_path
    return replace(caption, speech_path=str(speech), image_path=str(image))
