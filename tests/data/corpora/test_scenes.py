"""The corpus `scenes`: the same bytes each time, families that one word cannot tell apart, and real speech."""

import hashlib
import itertools
import os
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
from PIL import Image

from sia.data.corpora import scenes
from sia.data.corpora.scenes.grammar import Scene
from sia.data.corpora.scenes.plan import PlannedScene, plan_scenes
from sia.data.corpora.scenes.recipe import Recipe
from sia.data.manifest import SpokenCaption, validate_captions
from sia.data.words import words_of
from sia.errors import UserError

SMALL = Recipe(train_scenes=12, validation_families=1, test_families=2, block_scenes=16, seed=3)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small recipe's corpus; not to be changed."""
    root = tmp_path_factory.mktemp("scenes") / "made"
    scenes.read(root, SMALL)
    return root


@pytest.fixture(scope="module")
def captions(root: Path) -> list[SpokenCaption]:
    return scenes.read(root, SMALL).captions


@pytest.fixture(scope="module")
def planned() -> list[PlannedScene]:
    return plan_scenes(Recipe())


def digests(root: Path) -> dict[str, str]:
    files = (path for path in root.rglob("*") if path.is_file())
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def words(scene: Scene) -> list[str]:
    """The bag of words: all attributes, without the object that each belongs to."""
    return [*sorted(word for thing in scene.things for word in thing), scene.background]


def differences(scene: Scene, other: Scene) -> int:
    values = [[word for thing in each.things for word in thing] + [each.background] for each in (scene, other)]
    return sum(a != b for a, b in zip(*values, strict=True))


def test_a_killed_generation_resumes_to_the_same_bytes_in_another_folder(root: Path, tmp_path: Path) -> None:
    """What is lost is made again, what is whole is kept, and what was unfinished goes in time."""
    killed = Path(shutil.copytree(root, tmp_path / "killed"))
    (killed / scenes.MARKER).unlink()
    kept, incomplete, lost, *_ = sorted(killed.glob("block-*"))
    next(incomplete.glob("*.flac")).unlink()
    next(incomplete.glob("*.png")).unlink()
    shutil.rmtree(lost)
    for name in (".making-old", ".making-new"):
        (killed / name).mkdir()
    os.utime(killed / ".making-old", (0, 0))
    before = kept.stat().st_ino
    captions = scenes.read(killed, SMALL).captions
    assert digests(killed) == digests(root)
    assert kept.stat().st_ino == before
    assert [path.name for path in killed.glob(".making-*")] == [".making-new"]
    assert all(Path(caption.speech_path).is_relative_to(killed.resolve()) for caption in captions)


@pytest.mark.parametrize("marker", ['{"version": 0}', "[]", "torn"])
def test_a_marker_of_another_version_or_recipe_names_the_cure(root: Path, tmp_path: Path, marker: str) -> None:
    (tmp_path / scenes.MARKER).write_text(marker)
    for folder, recipe in ((tmp_path, SMALL), (root, replace(SMALL, train_scenes=13))):
        with pytest.raises(UserError, match=r"scenes\.json.*delete the folder"):
            scenes.read(folder, recipe)


def test_a_root_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"file.*give a folder"):
        scenes.read(tmp_path / "file", SMALL)


def test_an_unknown_voice_is_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="unknown voice 'xx-none'"):
        scenes.read(tmp_path, replace(SMALL, speakers=("xx-none",)))


def test_more_scenes_than_the_words_allow_is_an_error() -> None:
    with pytest.raises(UserError, match="more words"):
        plan_scenes(replace(SMALL, colours=("red", "blue"), shapes=("star", "cross"), train_scenes=500, family_edits=1))


@pytest.mark.parametrize("recipe", [SMALL, replace(SMALL, objects=3)])
def test_a_family_differs_in_who_has_what_or_in_one_attribute(recipe: Recipe) -> None:
    held_out = [row.scene for row in plan_scenes(recipe) if row.split != "train"]
    for start in range(0, len(held_out), recipe.family_size):
        base, *others = held_out[start : start + recipe.family_size]
        alike = [scene for scene in others if words(scene) == words(base)]
        near = [scene for scene in others if words(scene) != words(base)]
        assert (len(alike), len(near)) == (recipe.family_arrangements - 1, recipe.family_edits)
        assert all(differences(base, scene) == 1 for scene in near)
        assert all(differences(base, scene) >= 2 for scene in alike)


def test_no_scene_is_there_twice_and_sizes_are_the_recipes(planned: list[PlannedScene]) -> None:
    assert len({row.scene for row in planned}) == len({row.image_id for row in planned}) == len(planned)
    assert Counter(row.split for row in planned) == {"train": 1200, "validation": 320, "test": 400}
    assert {row.scene for row in plan_scenes(SMALL)} != {row.scene for row in plan_scenes(replace(SMALL, seed=4))}


def test_sentences_name_every_attribute_in_varied_words(planned: list[PlannedScene]) -> None:
    for row in planned:
        spoken = set(row.utterances[0].text.replace(",", "").replace("little", "small").replace("big", "large").split())
        assert set(words(row.scene)) - {"plain"} <= spoken
    assert len({utterance.text for row in planned for utterance in row.utterances}) > 0.9 * len(planned)


def test_every_caption_names_files_of_its_own(captions: list[SpokenCaption]) -> None:
    validate_captions(captions, "scenes")
    assert all(caption.language == "en" and caption.text and caption.speaker for caption in captions)
    assert "scene-test-0012-a" in {caption.utterance_id for caption in captions}
    assert all(Image.open(caption.image_path).size == (72, 72) for caption in captions)
    images = {Path(caption.image_path).read_bytes() for caption in captions}
    assert len(images) == len({caption.image_id for caption in captions})
    assert len({Path(caption.speech_path).read_bytes() for caption in captions}) == len(captions)
    assert Counter(caption.split for caption in captions) == {"train": 24, "validation": 20, "test": 40}


def test_speech_is_audible_short_and_in_several_voices(captions: list[SpokenCaption]) -> None:
    for caption in captions:
        info = soundfile.info(caption.speech_path)
        waveform, _ = soundfile.read(caption.speech_path)
        assert (info.samplerate, info.channels, info.subtype) == (16000, 1, "PCM_16")
        assert 1.2 < info.duration < 4.0
        assert 0.1 < np.abs(waveform).max() < 1.0
        assert np.sqrt(np.mean(waveform**2)) > 0.02
    assert len({caption.speaker for caption in captions}) >= 4


def test_the_words_of_a_recording_have_their_times(captions: list[SpokenCaption]) -> None:
    for caption in captions:
        said, seconds = words_of(Path(caption.speech_path)), soundfile.info(caption.speech_path).duration
        assert [word.text for word in said] == caption.text.replace(",", "").split()
        assert all(0 <= word.start < word.end <= seconds for word in said)
        assert all(one.end <= other.start + 0.005 for one, other in itertools.pairwise(said))
