"""Tux Paint's stamps, laid out as the package lays them out."""

import shutil
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
import soundfile
from corpus_files import dropped, refused
from PIL import Image

from sia.data.corpora import read
from sia.data.corpora.stamps import PACKAGED
from sia.data.manifest import Reading, validate_captions
from sia.errors import UserError

LANGUAGES = ("be", "bg", "ca", "fr", "ru")
ANIMALS = 30


def stamps(root: Path) -> Reading:
    return read("stamps", root)


def record(path: Path, seed: int, gain: float = 0.2) -> None:
    noise = np.random.default_rng(seed).uniform(-gain, gain, 1000)
    soundfile.write(path, noise.astype("float32"), 8000)


def draw(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGBA", (5, 4), (200, 10, 10, 128)).save(path)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Animals in five languages, each recording its own; not to be changed."""
    root = tmp_path_factory.mktemp("package")
    for number in range(ANIMALS):
        name = root / PACKAGED / "animals" / f"animal{number}"
        draw(name.with_suffix(".png"))
        for place, language in enumerate(LANGUAGES):
            record(name.with_name(f"{name.name}_desc_{language}.ogg"), seed=number * 10 + place)
    return root


@pytest.fixture
def package(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "package"))


@pytest.fixture
def frog(tmp_path: Path) -> Path:
    """The path, without suffix, of an image whose recordings the test adds."""
    name = tmp_path / "frogs" / PACKAGED / "animals" / "frog"
    draw(name.with_suffix(".png"))
    return name


def splits_of(reading: Reading) -> dict[str, list[str]]:
    splits = defaultdict(list)
    for caption in reading.captions:
        splits[caption.image_id].append(caption.split)
    return splits


def test_ids_languages_and_texts(tmp_path: Path, frog: Path) -> None:
    for seed, ending in enumerate(("_desc.ogg", "_desc_fr.ogg", "_desc_pt_BR.wav", "_desc_lt.ogg", ".ogg")):
        record(frog.with_name(frog.name + ending), seed)
    frog.with_suffix(".txt").write_bytes(b"A frog.\nfr.utf8=Une grenouille.\npt_BR.utf8=Um sapo = \nxx\xff\n")
    captions = {caption.utterance_id: caption for caption in stamps(tmp_path / "frogs").captions}
    texts = {name: (caption.language, caption.text) for name, caption in captions.items()}
    assert texts == {
        "animals/frog_en": ("en", "A frog."),
        "animals/frog_fr": ("fr", "Une grenouille."),
        "animals/frog_pt_BR": ("pt_BR", "Um sapo ="),
        "animals/frog_lt": ("lt", ""),
    }
    assert {(caption.image_id, caption.speaker) for caption in captions.values()} == {("animals/frog", "")}
    assert all(Path(c.speech_path).is_file() and Path(c.image_path).is_file() for c in captions.values())


def test_what_is_left_out_has_a_reason(tmp_path: Path, frog: Path) -> None:
    endings = ("frog_desc.ogg", "frog_desc_en.ogg", "frog_desc_da.ogg.ogg", "toad_desc_fr.ogg", "newt_desc_fr.ogg")
    for seed, name in enumerate(endings):
        record(frog.with_name(name), seed)
    frog.with_name("toad.svg").write_text("<svg/>")
    reading = stamps(tmp_path / "frogs")
    assert [caption.utterance_id for caption in reading.captions] == ["animals/frog_en"]
    assert dropped(reading) == {
        "animals/frog_desc_en.ogg": "a second recording in that language",
        "animals/frog_desc_da.ogg.ogg": "its name is not NAME_desc_LANGUAGE.ogg",
        "animals/toad_desc_fr.ogg": "its image is an SVG",
        "animals/newt_desc_fr.ogg": "no image of that name",
    }


def test_every_image_is_trained_on_and_lends_a_split_one_caption_at_most(whole: Path) -> None:
    reading = stamps(whole)
    for splits in splits_of(reading).values():
        assert splits.count("train") >= 3
        assert splits.count("validation") <= 1 and splits.count("test") <= 1
    totals = [caption.split for caption in reading.captions]
    assert totals.count("validation") > 15 and totals.count("test") > 15
    assert stamps(whole / PACKAGED) == reading, "the stamps folder itself is a root"
    with pytest.raises(UserError, match="two splits"):
        validate_captions(reading.captions, "stamps")


def test_an_image_of_three_captions_lends_one_and_of_two_none(package: Path) -> None:
    for number in range(ANIMALS):
        for language in LANGUAGES[2 + number % 2 :]:
            (package / PACKAGED / "animals" / f"animal{number}_desc_{language}.ogg").unlink()
    lent: dict[int, set[int]] = defaultdict(set)
    for splits in splits_of(stamps(package)).values():
        lent[len(splits)].add(len(splits) - splits.count("train"))
    assert lent == {2: {0}, 3: {1}}


def test_a_take_that_several_images_share_stays_in_training(package: Path) -> None:
    """As a copy, or encoded twice."""
    animals = package / PACKAGED / "animals"
    for number in range(0, ANIMALS, 2):
        for language in LANGUAGES[:2]:
            copy = animals / f"animal{number}_desc_{language}.ogg"
            shutil.copy(copy, animals / f"animal{number + 1}_desc_{language}.ogg")
        for place, language in enumerate(LANGUAGES[2:4], start=2):
            record(animals / f"animal{number + 1}_desc_{language}.ogg", seed=number * 10 + place, gain=0.1)
    lent = {caption.language for caption in stamps(package).captions if caption.split != "train"}
    assert lent == {"ru"}


def test_an_unreadable_recording_is_never_held_out(package: Path) -> None:
    """It is left for the preparation to drop."""
    for path in package.rglob("*_desc_*.ogg"):
        path.write_bytes(b"")
    captions = stamps(package).captions
    assert len(captions) == ANIMALS * len(LANGUAGES) and {caption.split for caption in captions} == {"train"}


def test_splits_do_not_depend_on_the_other_images(whole: Path, package: Path) -> None:
    for path in package.rglob("animal1[0-9]*"):
        path.unlink()
    before, after = ({c.utterance_id: c.split for c in stamps(root).captions} for root in (whole, package))
    assert len(after) == len(before) - 10 * len(LANGUAGES) and after.items() <= before.items()


def test_a_wrong_root_names_the_cure(tmp_path: Path) -> None:
    (tmp_path / "stamps.zip").write_bytes(b"PK")
    for root in (tmp_path / "absent", tmp_path, tmp_path / "stamps.zip"):
        refused("stamps", root, r"make stamps.*--root")
