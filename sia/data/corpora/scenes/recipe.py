"""How hard the corpus is: every number and word list that it is made from, in one place."""

from dataclasses import dataclass

VERSION = 1  # to be raised whenever the same recipe gives other sentences, pictures or sounds


@dataclass(frozen=True, slots=True)
class Recipe:
    """What is made. A family is `family_arrangements` scenes of the same words and `family_edits` near misses.

    Recall at 10 of a model that hears only a bag of words is about 10 / family_arrangements within a family.
    """

    seed: int = 0
    train_scenes: int = 1200
    validation_families: int = 16
    test_families: int = 20
    family_arrangements: int = 16
    family_edits: int = 4
    train_captions: int = 2
    evaluation_captions: int = 1
    objects: int = 2
    sizes: tuple[str, ...] = ("small", "large")
    textures: tuple[str, ...] = ("plain", "striped")
    colours: tuple[str, ...] = ("red", "green", "blue", "yellow", "purple", "orange")
    shapes: tuple[str, ...] = ("circle", "square", "triangle", "star", "cross")
    backgrounds: tuple[str, ...] = ("night", "sand", "snow", "grass")
    speakers: tuple[str, ...] = ("en", "en+f3", "en-us", "en-us+m3", "en-us+f4")
    words_per_minute: tuple[int, int] = (280, 340)
    pitch: tuple[int, int] = (40, 60)  # espeak's scale, 0 to 100
    image_side: int = 72
    block_scenes: int = 80

    @property
    def family_size(self) -> int:
        return self.family_arrangements + self.family_edits
