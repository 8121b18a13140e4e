"""Which images are held out of train: the same ones everywhere, whole images, never all of them."""

from dataclasses import replace
from hashlib import sha256

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sia.data.corpora.held_out import held_images, hold_out, make_splits, without_shared_images
from sia.data.manifest import SpokenCaption


def captions(*names: str, of_image: int = 1, split: str = "train") -> list[SpokenCaption]:
    return [
        SpokenCaption(f"{split}-{name}-{number}", name, f"{name}-{number}.wav", f"{name}.jpg", split)
        for name in names
        for number in range(of_image)
    ]


@pytest.mark.parametrize("images", [1000, 20_000, 40_000])
def test_the_hash_of_an_image_chooses_about_a_thousand_and_at_most_one_in_twenty(images: int) -> None:
    names = {f"a/abbey/{number}.jpg" for number in range(images)}
    drawn = {name: int(sha256(name.encode()).hexdigest()[:12], 16) / 16**12 for name in names}
    held = held_images(names)
    assert held == {name for name in names if drawn[name] < min(0.05, 1000 / images)}
    assert 30 <= len(held) <= 1100


@settings(max_examples=40)
@given(st.sets(st.text(max_size=4), max_size=30))
def test_one_at_least_is_held_out_of_two_and_one_is_left(names: set[str]) -> None:
    held = held_images(names)
    assert held <= names
    assert (1 <= len(held) < len(names)) if len(names) > 1 else not held


def test_all_captions_of_an_image_move_and_only_those_of_train() -> None:
    tested = captions("tested", of_image=2, split="test")
    moved, told = hold_out(captions(*"abcdefgh", of_image=5) + tested)
    (held,) = held_images(set("abcdefgh"))
    assert {(c.image_id, c.split) for c in moved} == {
        *((name, "validation" if name == held else "train") for name in "abcdefgh"),
        ("tested", "test"),
    }
    assert len(moved) == 42 and [c.utterance_id for c in moved[-2:]] == ["test-tested-0", "test-tested-1"]
    assert told == "1 image held out of train is validation"
    many = [f"{number}.jpg" for number in range(1000)]
    assert hold_out(captions(*many))[1] == f"{len(held_images(set(many)))} images held out of train are validation"
    alone = captions("a")
    assert hold_out(alone) == (alone, "train has too few images to hold one out for validation")


def test_an_image_is_heard_of_in_the_strictest_of_its_splits_only() -> None:
    trained, validated, tested = (captions("a", split=split)[0] for split in ("train", "validation", "test"))
    others = captions("b", "c")
    assert without_shared_images([*others, trained]) == ([*others, trained], [])
    kept, dropped = without_shared_images([trained, *others, validated])
    assert kept == [*others, validated]
    assert [entry.utterance_id for entry in dropped] == ["train-a-0"]
    kept, dropped = without_shared_images([tested, trained, replace(trained, utterance_id="again"), validated])
    assert kept == [tested]
    assert [entry.utterance_id for entry in dropped] == ["train-a-0", "again", "validation-a-0"]
    assert {entry.reason for entry in dropped} == {"its image is in a held-out split too"}


@settings(max_examples=60)
@given(st.lists(st.tuples(st.integers(0, 40), st.integers(0, 60)), max_size=90))
def test_splits_that_are_made_share_no_image_and_no_speaker_unless_they_say_so(told: list[tuple[int, int]]) -> None:
    spoken = [
        SpokenCaption(str(number), f"i{image}", f"{number}.wav", f"{image}.jpg", "", speaker=str(speaker))
        for number, (speaker, image) in enumerate(told)
    ]
    split, said = make_splits(spoken)
    assert [(c.utterance_id, c.image_id) for c in split] == [(c.utterance_id, c.image_id) for c in spoken]
    assert len({(c.image_id, c.split) for c in split}) == len({c.image_id for c in split})
    if "several of them" not in said:
        assert len({(c.speaker, c.split) for c in split}) == len({c.speaker for c in split})
    images = {c.image_id: c.split for c in split}
    counts = [[*images.values()].count(name) for name in ("train", "validation", "test")]
    assert len(images) < 3 or (counts[0] >= sum(counts) // 3 and min(counts[1:]) >= 1)


def test_speakers_stay_apart_where_each_describes_images_of_their_own() -> None:
    spoken = [
        SpokenCaption(
            f"{image}-{take}", f"i{image}", f"{image}-{take}.wav", f"{image}.jpg", "", speaker=str(image // 3)
        )
        for image in range(60)
        for take in range(2)
    ]
    split, said = make_splits(spoken)
    assert said == "no split column: 36 images to train, 12 images to validation, 12 images to test, no speaker to two"
    assert len({(c.speaker, c.split) for c in split}) == 20
    entangled, said = make_splits([replace(c, speaker="one") for c in spoken])
    assert said.endswith("they are too few, or describe the same images")
    assert [c.split for c in entangled].count("test") == 24
