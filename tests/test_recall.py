"""Recall against loops over all pairs, and on matrices small enough to read."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from sia import recall
from sia.recall import ranks_of_captions, ranks_of_images, recall_report


def naive_ranks_of_images(speech: np.ndarray, images: np.ndarray, owner: list[int]) -> list[int]:
    ranks = []
    for caption, own in zip(speech, owner, strict=True):
        similar = [float(caption @ image) for image in images]
        ranks.append(1 + sum(similar[j] >= similar[own] for j in range(len(images)) if j != own))
    return ranks


def naive_ranks_of_captions(speech: np.ndarray, images: np.ndarray, owner: list[int]) -> list[int]:
    ranks = []
    for image in sorted(set(owner)):
        similar = [float(images[image] @ caption) for caption in speech]
        best = max(value for value, own in zip(similar, owner, strict=True) if own == image)
        ranks.append(1 + sum(value >= best for value, own in zip(similar, owner, strict=True) if own != image))
    return ranks


def naive_report(speech: np.ndarray, images: np.ndarray, owner: list[int]) -> dict[str, float]:
    report = {}
    for direction, ranks in (
        ("speech_to_image", naive_ranks_of_images(speech, images, owner)),
        ("image_to_speech", naive_ranks_of_captions(speech, images, owner)),
    ):
        for k in (1, 5, 10):
            report[f"{direction}/R_at_{k}"] = sum(rank <= k for rank in ranks) / len(ranks)
        report[f"{direction}/median_rank"] = float(np.median(ranks))
    return report


@st.composite
def embedded(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, list[int]]:
    """Few distinct directions: duplicates and ties abound; several captions an image, and images without any."""
    num_captions, num_images = draw(st.integers(1, 14)), draw(st.integers(1, 14))
    chance = np.random.default_rng(draw(st.integers(0, 10_000)))
    # Whole numbers: a product of equal vectors is exactly equal, whatever the order of the sum.
    speech, images = chance.integers(-1, 2, (num_captions, 3)), chance.integers(-1, 2, (num_images, 3))
    return speech.astype(float), images.astype(float), chance.integers(0, num_images, num_captions).tolist()


@pytest.mark.parametrize("queries_at_once", [3, recall.QUERIES_AT_ONCE])
@settings(deadline=None, max_examples=100)
@given(case=embedded())
def test_equals_the_naive_loops(queries_at_once: int, case: tuple[np.ndarray, np.ndarray, list[int]]) -> None:
    speech, images, owner = case
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recall, "QUERIES_AT_ONCE", queries_at_once)
        report = recall_report(torch.from_numpy(speech), torch.from_numpy(images), torch.tensor(owner))
    assert report == pytest.approx(naive_report(speech, images, owner), abs=1e-12)


def directions(*degrees: float) -> Tensor:
    return torch.tensor([[math.cos(math.radians(angle)), math.sin(math.radians(angle))] for angle in degrees])


def test_right_answers_first() -> None:
    report = recall_report(directions(0, 120, 240), directions(5, 125, 235), torch.arange(3))
    expected = {"R_at_1": 1.0, "R_at_5": 1.0, "R_at_10": 1.0, "median_rank": 1.0}
    for direction in ("speech_to_image", "image_to_speech"):
        assert {key: report[f"{direction}/{key}"] for key in expected} == expected


def test_ranks_by_hand() -> None:
    speech, images = directions(0, 50, 91), directions(10, 30, 45, 80)
    owner = torch.tensor([2, 1, 3])
    # Caption at 0: the image at 45 is third. At 50: the image at 30 comes after 45, before 80. At 91: 80 is nearest.
    assert ranks_of_images(speech, images, owner).tolist() == [3, 2, 1]
    # Image 1 (at 30): its caption, 20 away, is the nearest. Image 2 (at 45): 50 is nearer than 0, and 91 is
    # not. Image 3 (at 80): 91 is the nearest. Image 0 has no caption and is no query.
    assert ranks_of_captions(speech, images, owner).tolist() == [1, 2, 1]


def test_several_captions_of_an_image() -> None:
    """The best one counts, and those of the same image are no wrong answers."""
    speech, images = directions(170, 20, 10, 5), directions(0, 100)
    assert ranks_of_captions(speech, images, torch.tensor([0, 0, 0, 1])).tolist() == [2, 4]
    assert ranks_of_captions(speech, images, torch.tensor([0, 0, 1, 0])).tolist() == [1, 3]


def test_ties_count_against_the_query() -> None:
    speech = images = directions(0, 0, 0, 90)
    assert ranks_of_images(speech, images, torch.arange(4)).tolist() == [3, 3, 3, 1]
    assert ranks_of_captions(speech, images, torch.arange(4)).tolist() == [3, 3, 3, 1]


def test_ties_up_to_rounding_count_against_the_query() -> None:
    """Equal embeddings in float32, whose products a matrix kernel may round differently."""
    torch.manual_seed(0)
    speech = torch.nn.functional.normalize(torch.randn(1, 999), dim=-1).repeat(37, 1)
    images = torch.nn.functional.normalize(torch.randn(1, 999), dim=-1).repeat(41, 1)
    assert ranks_of_images(speech, images, torch.arange(37)).tolist() == [41] * 37
    assert ranks_of_captions(speech, images, torch.arange(37)).tolist() == [37] * 37


@pytest.mark.parametrize("count", [12, 100])
def test_a_constant_embedding_scores_at_most_chance(count: int) -> None:
    constant = torch.ones(count, 4) / 2
    report = recall_report(constant, constant, torch.arange(count))
    for direction in ("speech_to_image", "image_to_speech"):
        for k in (1, 5, 10):
            assert report[f"{direction}/R_at_{k}"] <= k / count


@pytest.mark.parametrize("broken", ["speech", "images", "both"])
def test_an_embedding_that_is_no_number_never_wins(broken: str) -> None:
    speech, images = torch.eye(12), torch.eye(12)
    if broken != "images":
        speech = torch.full_like(speech, float("nan"))
    if broken != "speech":
        images = torch.full_like(images, float("nan"))
    report = recall_report(speech, images, torch.arange(12))
    assert {value for key, value in report.items() if "R_at" in key} == {0.0}


def test_one_broken_image_wins_no_query() -> None:
    speech, images = torch.eye(4), torch.eye(4)
    images[2] = float("nan")
    # The broken image counts as a wrong answer that may be as similar: it takes first place from the others.
    assert ranks_of_images(speech, images, torch.arange(4)).tolist() == [2, 2, 4, 2]
    assert ranks_of_captions(speech, images, torch.arange(4)).tolist() == [1, 1, 4, 1]


def test_median_rank_of_an_even_number_of_queries() -> None:
    report = recall_report(directions(0, 50), directions(40, 10), torch.tensor([0, 0]))
    # Caption at 0: the image at 40 is second; at 50: first.
    assert report["speech_to_image/median_rank"] == 1.5
    assert report["image_to_speech/median_rank"] == 1.0


@pytest.mark.parametrize("k", [1, 5, 10])
def test_random_embeddings_are_at_chance(k: int) -> None:
    torch.manual_seed(0)
    count = 400
    report = recall_report(torch.randn(count, 16), torch.randn(count, 16), torch.arange(count))
    chance = k / count
    deviation = math.sqrt(chance * (1 - chance) / count)
    for direction in ("speech_to_image", "image_to_speech"):
        assert abs(report[f"{direction}/R_at_{k}"] - chance) < 4 * deviation


@pytest.mark.parametrize(
    ("speech", "images", "owner", "problem"),
    [
        ((3, 4), (3, 5), [0, 1, 2], "must be"),
        ((3,), (3, 5), [0, 1, 2], "must be"),
        ((3, 4), (3, 4), [0, 1], "must be"),
        ((3, 4), (3, 4), [0, 1, 3], "outside"),
        ((3, 4), (3, 4), [0, 1, -1], "outside"),
        ((0, 4), (3, 4), [], "no caption"),
    ],
)
def test_what_does_not_fit_is_refused(
    speech: tuple[int, ...], images: tuple[int, ...], owner: list[int], problem: str
) -> None:
    with pytest.raises(ValueError, match=problem):
        recall_report(torch.zeros(speech), torch.zeros(images), torch.tensor(owner))
