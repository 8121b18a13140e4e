"""Recipe -> every scene with its name, split and captions, cut into blocks that one process makes each."""

import hashlib
import json
from functools import partial
from random import Random
from typing import NamedTuple

from sia.data.corpora.scenes.grammar import Scene, describe, sample_apart, sample_family, sample_scene
from sia.data.corpora.scenes.recipe import VERSION, Recipe


class Utterance(NamedTuple):
    """One sentence and how it is spoken. Pitch is on espeak's scale, 0 to 100."""

    utterance_id: str
    text: str
    speaker: str
    words_per_minute: int
    pitch: int

    @property
    def file_name(self) -> str:
        return f"{self.utterance_id}.flac"


class PlannedScene(NamedTuple):
    image_id: str
    split: str
    scene: Scene
    utterances: tuple[Utterance, ...]

    @property
    def file_name(self) -> str:
        return f"{self.image_id}.png"


class Block(NamedTuple):
    """Scenes that are made together. The name holds a hash of them: a block of another recipe has another name."""

    name: str
    image_side: int
    scenes: tuple[PlannedScene, ...]

    @property
    def file_names(self) -> list[str]:
        spoken = [utterance.file_name for planned in self.scenes for utterance in planned.utterances]
        return [planned.file_name for planned in self.scenes] + spoken


def plan_scenes(recipe: Recipe) -> list[PlannedScene]:
    """All scenes, the families of validation and test one after the other, each `recipe.family_size` long."""
    random, taken = Random(recipe.seed), set[Scene]()
    draw_family = partial(sample_family, random, recipe)
    validation = sample_apart(draw_family, recipe.validation_families, taken)
    test = sample_apart(draw_family, recipe.test_families, taken)
    train = sample_apart(lambda: [sample_scene(random, recipe)], recipe.train_scenes, taken)
    captions = {"train": recipe.train_captions}
    return [
        _plan_scene(recipe, split, number, scene, captions.get(split, recipe.evaluation_captions))
        for split, scenes in (("train", train), ("validation", validation), ("test", test))
        for number, scene in enumerate(scenes)
    ]


def _plan_scene(recipe: Recipe, split: str, number: int, scene: Scene, captions: int) -> PlannedScene:
    image_id = f"scene-{split}-{number:04d}"
    random = Random(f"{recipe.seed} {image_id}")
    names = [f"{image_id}-{chr(ord('a') + which)}" for which in range(captions)]
    return PlannedScene(image_id, split, scene, tuple(_utterance(recipe, name, scene, random) for name in names))


def _utterance(recipe: Recipe, utterance_id: str, scene: Scene, random: Random) -> Utterance:
    text, speaker = describe(scene, random), random.choice(recipe.speakers)
    pace, pitch = random.randint(*recipe.words_per_minute), random.randint(*recipe.pitch)
    return Utterance(utterance_id, text, speaker, pace, pitch)


def plan_blocks(recipe: Recipe) -> list[Block]:
    """The same scenes in blocks of `recipe.block_scenes`."""
    scenes = plan_scenes(recipe)
    blocks = []
    for number, start in enumerate(range(0, len(scenes), recipe.block_scenes)):
        planned = tuple(scenes[start : start + recipe.block_scenes])
        content = json.dumps([VERSION, recipe.image_side, planned])
        digest = hashlib.sha256(content.encode()).hexdigest()[:8]
        blocks.append(Block(f"block-{number:03d}-{digest}", recipe.image_side, planned))
    return blocks
