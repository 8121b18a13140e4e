"""The corpus `scenes`, really drawn and spoken, from a recipe that takes a few seconds."""

from pathlib import Path

import pytest

from sia.data.corpora import READERS, scenes
from sia.data.corpora.scenes.recipe import Recipe
from sia.data.manifest import Reading
from sia.data.prepare import finish, plan, write_shard

RECIPE = Recipe(train_scenes=96, validation_families=2, test_families=2, train_captions=1)
SHORT_SIDE = 72


def read(root: Path) -> Reading:
    """The reader of the small recipe, in the place of sia/data/corpora/scenes."""
    return scenes.read(root, RECIPE)


def prepare(out: Path) -> Path:
    """A prepared corpus of 96 training captions and 40 validation and test captions each; its folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(READERS, "scenes", __name__)
        for number in range(plan("scenes", out / "raw", out, None, SHORT_SIDE)):
            write_shard(out, number)
    finish(out)
    return out
