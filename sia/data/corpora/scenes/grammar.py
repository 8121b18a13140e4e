"""What a scene is, which scenes are easily confused with it, and the sentences that describe it."""

from collections.abc import Callable, Iterable, Sequence
from itertools import permutations, product
from random import Random
from typing import NamedTuple

from sia.data.corpora.scenes.recipe import Recipe
from sia.errors import UserError

SAID = {
    "small": ("small", "little"),
    "large": ("large", "big"),
    "night": ("at night",),
    "plain": ("",),  # as people do: a texture is named where there is one
    "sand": ("on sand",),
    "snow": ("on snow", "in snow"),
    "grass": ("on grass",),
}
DOWNWARD = ("above", "over")
UPWARD = ("below", "under")


class Thing(NamedTuple):
    """One object. The attributes are in the order in which they are spoken."""

    size: str
    texture: str
    colour: str
    shape: str


class Scene(NamedTuple):
    """Objects from top to bottom, before a background. Unlike left and right, above and below outlive a flip."""

    things: tuple[Thing, ...]
    background: str


def sample_apart(draw: Callable[[], list[Scene]], number: int, taken: set[Scene]) -> list[Scene]:
    """So many draws that share no scene with each other or with `taken`, to which theirs are added.

    Raises UserError where there are not so many; a draw of no scenes has failed.
    """
    scenes: list[Scene] = []
    missing = number
    for _ in range(200 * number):
        drawn = draw() if missing else []
        if drawn and taken.isdisjoint(drawn):
            taken.update(drawn)
            scenes += drawn
            missing -= 1
    if missing:
        raise UserError(f"scenes: the recipe gives {missing} of {number} too few; ask for fewer, or give it more words")
    return scenes


def sample_family(random: Random, recipe: Recipe) -> list[Scene]:
    """A scene, then some that are easily confused with it; none where there are not so many as the recipe asks for."""
    base = sample_scene(random, recipe)
    alike, near = arrangements(base), edits(base, recipe)
    others = random.sample(alike, min(len(alike), recipe.family_arrangements - 1))
    family = [base, *others, *random.sample(near, min(len(near), recipe.family_edits))]
    return family if len(family) == recipe.family_size else []


def sample_scene(random: Random, recipe: Recipe) -> Scene:
    """A scene whose objects share no attribute as far as there are enough values, so that every exchange shows."""
    objects = recipe.objects
    columns = [
        random.sample(values, objects) if objects <= len(values) else random.choices(values, k=objects)
        for values in _attributes(recipe)
    ]
    return _of_columns(columns, random.choice(recipe.backgrounds))


def arrangements(scene: Scene) -> list[Scene]:
    """All other scenes with the same words: sizes, textures, colours and shapes exchanged among the objects."""
    columns = list(zip(*scene.things, strict=True))
    ways = product(*(sorted(set(permutations(column))) for column in columns))
    return [other for way in ways if (other := _of_columns(way, scene.background)) != scene]


def edits(scene: Scene, recipe: Recipe) -> list[Scene]:
    """All scenes that differ from `scene` in one attribute, whose new value none of its objects has."""
    changed = [scene._replace(background=other) for other in recipe.backgrounds if other != scene.background]
    for field, values in zip(Thing._fields, _attributes(recipe), strict=True):
        unused = [value for value in values if value not in {getattr(thing, field) for thing in scene.things}]
        for place, value in product(range(len(scene.things)), unused):
            things = list(scene.things)
            things[place] = things[place]._replace(**{field: value})
            changed.append(scene._replace(things=tuple(things)))
    return changed


def _of_columns(columns: Iterable[Sequence[str]], background: str) -> Scene:
    """A scene by its objects' sizes, textures, colours and shapes."""
    return Scene(tuple(Thing(*values) for values in zip(*columns, strict=True)), background)


def _attributes(recipe: Recipe) -> tuple[tuple[str, ...], ...]:
    return recipe.sizes, recipe.textures, recipe.colours, recipe.shapes


def describe(scene: Scene, random: Random) -> str:
    """A sentence that names every attribute but plainness, in a wording that `random` chooses."""
    upward = random.random() < 0.5
    things = scene.things[::-1] if upward else scene.things
    relations = [f" {random.choice(UPWARD if upward else DOWNWARD)} " for _ in things[1:]] + [""]
    phrases = [" ".join(["a", *filter(None, (_say(word, random) for word in thing))]) for thing in things]
    objects = "".join(phrase + relation for phrase, relation in zip(phrases, relations, strict=True))
    background = _say(scene.background, random)
    return f"{background}, {objects}" if random.random() < 0.5 else f"{objects}, {background}"


def _say(word: str, random: Random) -> str:
    return random.choice(SAID.get(word, (word,)))
