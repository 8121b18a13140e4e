"""Recipe -> every scene with its name, split and captions, cut into blocks that one process makes each."""

import hashlib
import json
from itertools import chain
from random import Random
from typing import NamedTuple

from sia.data.corpora.scenes.grammar import Scene, Thing, describe, sample_families, sample_scenes
from sia.data.corpora.scenes.recipe import VERSION, Recipe


class Utterance(NamedTuple):
    """One sentence and how it is spoken. Pitch is on espeak's scale, 0 to 100."""

    utterance_id: str
    text: str
    speaker: str
    words_per_minute: int
    pitch: int


class PlannedScene(NamedTuple):
    image_id: str
    split: str
    scene: Scene
    utterances: tuple[Utterance, ...]


class Block(NamedTuple):
    """Scenes that are made together. The name holds a hash of them: a block of another recipe has another name."""

    name: str
    image_side: int
    scenes: tuple[PlannedScene, ...]

    @property
    def file_names(self) -> list[str]:
        spoken = [speech_name(utterance) for planned in self.scenes for utterance in planned.utterances]
        return [image_name(planned) for planned in self.scenes] + spoken


def image_name(planned: PlannedScene) -> str:
    return f"{planned.image_id}.png"


def speech_name(utterance: Utterance) -> str:
    return f"{utterance.utterance_id}.flac"


def plan_scenes(recipe: Recipe) -> list[PlannedScene]:
    """All scenes, the families of validation and test one after the other, each `recipe.family_size` long."""
    random, taken = Random(recipe.seed), set[Scene]()
    validation = chain(*sample_families(random, recipe, recipe.validation_families, taken))
    test = chain(*sample_families(random, recipe, recipe.test_families, taken))
    train = sample_scenes(random, recipe, recipe.train_scenes, taken)
    captions = {"train": recipe.train_captions}
    return [
        _plan_scene(recipe, split, number, scene, captions.get(split, recipe.evaluation_captions))
        for split, scenes in (("train", train), ("validation", validation), ("test", test))
        for number, scene in enumerate(scenes)
    ]


def plan_blocks(recipe: Recipe) -> list[Block]:
    scenes = plan_scenes(recipe)
    starts = range(0, len(scenes), recipe.block_scenes)
    return [_block(recipe, number, scenes[start : start + recipe.block_scenes]) for number, start in enumerate(starts)]


def block_to_json(block: Block) -> str:
    return json.dumps(block)


def block_from_json(text: str) -> Block:
    name, image_side, rows = json.loads(text)
    return Block(name, image_side, tuple(_planned_from_row(*row) for row in rows))


def _plan_scene(recipe: Recipe, split: str, number: int, scene: Scene, captions: int) -> PlannedScene:
    image_id = f"scene-{split}-{number:04d}"
    random = Random(f"{recipe.seed} {image_id}")
    names = (f"{image_id}-{chr(ord('a') + which)}" for which in range(captions))
    return PlannedScene(image_id, split, scene, tuple(_utterance(recipe, name, scene, random) for name in names))


def _utterance(recipe: Recipe, utterance_id: str, scene: Scene, random: Random) -> Utterance:
    text, speaker = describe(scene, random), random.choice(recipe.speakers)
    return Utterance(
        utterance_id, text, speaker, random.randint(*recipe.words_per_minute), random.randint(*recipe.pitch)
    )


def _block(recipe: Recipe, number: int, scenes: list[PlannedScene]) -> Block:
    content = json.dumps([VERSION, recipe.image_side, scenes])
    digest = hashlib.sha256(content.encode()).hexdigest()[:8]
    return Block(f"block-{number:03d}-{digest}", recipe.image_side, tuple(scenes))


def _planned_from_row(image_id: str, split: str, scene: list, utterances: list) -> PlannedScene:
    things, background = scene
    restored = Scene(tuple(Thing(*thing) for thing in things), background)
    return PlannedScene(image_id, split, restored, tuple(Utterance(*utterance) for utterance in utterances))
