"""Recall against loops over all pairs, and on matrices small enough to read."""

import math
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from sia import recall
from sia.recall import image_pools, ranks, recall_report

torch.set_num_threads(1)


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
    for direction, found in (
        ("speech_to_image", naive_ranks_of_images(speech, images, owner)),
        ("image_to_speech", naive_ranks_of_captions(speech, images, owner)),
    ):
        for k in (1, 5, 10):
            report[f"{direction}/R_at_{k}"] = sum(rank <= k for rank in found) / len(found)
        report[f"{direction}/median_rank"] = float(np.median(found))
        report[f"{direction}/mean_rank"] = sum(found) / len(found)
    return report


Case = tuple[np.ndarray, np.ndarray, list[int]]


@st.composite
def embedded(draw: st.DrawFn) -> Case:
    """Few distinct directions: duplicates and ties abound; several captions an image, and images without any."""
    num_captions, num_images = draw(st.integers(1, 14)), draw(st.integers(1, 14))
    chance = np.random.default_rng(draw(st.integers(0, 10_000)))
    # Whole numbers: a product of equal vectors is exactly equal, whatever the order of the sum.
    speech, images = chance.integers(-1, 2, (num_captions, 3)), chance.integers(-1, 2, (num_images, 3))
    return speech.astype(float), images.astype(float), chance.integers(0, num_images, num_captions).tolist()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("block", [1, 3, recall.BLOCK])
@settings(deadline=None, max_examples=40)
@given(case=embedded())
def test_equals_the_naive_loops(block: int, dtype: torch.dtype, case: Case) -> None:
    speech, images, owner = case
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recall, "BLOCK", block)
        tensors = torch.from_numpy(speech).to(dtype), torch.from_numpy(images).to(dtype), torch.tensor(owner)
        report = recall_report(*tensors)
    assert report == pytest.approx(naive_report(speech, images, owner), abs=1e-12)


@pytest.mark.parametrize("many", [0, recall.MANY, 1])
@pytest.mark.parametrize("apart", [1e-8, 1e-6, 1e-4, 1.0])
def test_near_ties_have_the_ranks_of_float64(many: float, apart: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether all, some or none of them are settled one by one."""
    monkeypatch.setattr(recall, "MANY", many)
    monkeypatch.setattr(recall, "BLOCK", 50)
    monkeypatch.setattr(recall, "SETTLED", 100)
    chance = torch.Generator().manual_seed(0)
    kinds = torch.randn(4, 300, generator=chance)  # few directions: most similarities differ by `apart` at the most
    speech, images = (
        torch.nn.functional.normalize(
            kinds[number % 4] + apart * torch.randn(len(number), 300, generator=chance), dim=1
        )
        for number in (torch.arange(130), torch.arange(70))
    )
    owner = torch.randint(70, (130,), generator=chance)
    found, expected = ranks(speech, images, owner), ranks(speech.double(), images.double(), owner)
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))
    if apart > 1e-5:  # else equal embeddings' products differ by rounding, which the naive loops take for no tie
        naive = naive_ranks_of_images(speech.double().numpy(), images.double().numpy(), owner.tolist())
        assert found.of_images.tolist() == naive


@settings(deadline=None, max_examples=60)
@given(
    features=st.integers(1, 700),
    sign=st.sampled_from([0, 1]),
    scale=st.sampled_from([1e-12, 1.0, 1e6]),
    seed=st.integers(0, 1000),
)
def test_no_product_of_float32_is_wrong_by_more_than_its_bound(
    features: int, sign: int, scale: float, seed: int
) -> None:
    """Also of vectors of one direction and of positive numbers, whose sums are large, and of sums that cancel."""
    torch.manual_seed(seed)
    speech, images = torch.randn(20, features), scale * torch.randn(20, features)
    images[:10] = scale * speech[:10]
    images[10:15] = torch.where(torch.arange(features) % 2 == 0, scale, -scale) * speech[10:15]
    if sign:
        speech, images = speech.abs(), images.abs()
    wrong = (recall._products(speech, images).double() - speech.double() @ images.double().T).abs()
    bound = recall._rounding(speech, images)
    assert bound is not None and wrong.max() <= bound


def test_where_products_of_float32_are_rounded_more_coarsely_they_decide_nothing() -> None:
    speech = torch.eye(3)
    torch.set_float32_matmul_precision("medium")
    try:
        assert recall._rounding(speech, speech) is None
    finally:
        torch.set_float32_matmul_precision("highest")
    assert recall._rounding(speech, speech.bfloat16()) is None
    assert recall._rounding(speech, float("nan") * speech) is recall._rounding(speech, 1e35 * speech) is None


def naive_pools(case: Case, pool: int) -> list[Case]:
    """The images in their order, `pool` at a time, with their captions; groups without a caption are left out."""
    speech, images, owner = case
    pools = []
    for start in range(0, len(images), pool):
        inside = [place for place, own in enumerate(owner) if start <= own < start + pool]
        if inside:
            pools.append((speech[inside], images[start : start + pool], [owner[place] - start for place in inside]))
    return pools


@settings(deadline=None, max_examples=100)
@given(case=embedded(), pool=st.integers(1, 16), folds=st.integers(1, 4))
def test_pools_are_measured_each_on_its_own_and_averaged(case: Case, pool: int, folds: int) -> None:
    speech, images, owner = case
    tensors = torch.from_numpy(speech), torch.from_numpy(images), torch.tensor(owner)
    pools = naive_pools(case, pool)
    if len(pools) < folds:
        with pytest.raises(ValueError, match=f"make {len(pools)} such pools"):
            recall_report(*tensors, pool=pool, folds=folds)
        return
    reports = [naive_report(*one) for one in pools[:folds]]
    expected = {name: sum(report[name] for report in reports) / folds for name in reports[0]}
    assert recall_report(*tensors, pool=pool, folds=folds) == pytest.approx(expected, abs=1e-12)


def test_pools_take_images_in_their_order() -> None:
    owner = torch.tensor([6, 0, 2, 2, 5])
    assert image_pools(owner, 8) == image_pools(owner, 8, pool=100) == [range(8)]
    assert image_pools(owner, 8, pool=3, folds=3) == [range(3), range(3, 6), range(6, 8)]
    # Images 3 and 4 have no caption: their pool asks no question.
    assert image_pools(torch.tensor([6, 0]), 8, pool=3, folds=2) == [range(3), range(6, 8)]


@pytest.mark.parametrize(
    ("pool", "folds", "problem"),
    [
        (None, 2, "give the number"),
        (0, 1, "1 or more"),
        (3, 0, "1 or more"),
        (4, 3, "make 2 such pools"),
        (9, 2, "make 1 such pools"),
    ],
)
def test_pools_that_cannot_be_had(pool: int | None, folds: int, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        image_pools(torch.arange(8), 8, pool, folds)


def test_memory_grows_with_embeddings_not_with_pairs() -> None:
    """A matrix of all similarities would take 1.8 GB."""
    code = """
import resource, torch
from sia.recall import recall_report
torch.set_num_threads(1)
speech, images = torch.randn(15_000, 8), torch.randn(15_000, 8)
recall_report(speech[:4500], images[:4500], torch.arange(4500))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
recall_report(speech, images, torch.arange(15_000))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 100_000  # KiB


def directions(*degrees: float) -> Tensor:
    return torch.tensor([[math.cos(math.radians(angle)), math.sin(math.radians(angle))] for angle in degrees])


def of_images(speech: Tensor, images: Tensor, owner: Tensor) -> Tensor:
    return ranks(speech, images, owner).of_images


def of_captions(speech: Tensor, images: Tensor, owner: Tensor) -> Tensor:
    return ranks(speech, images, owner).of_captions


def test_right_answers_first() -> None:
    report = recall_report(directions(0, 120, 240), directions(5, 125, 235), torch.arange(3))
    expected = {"R_at_1": 1.0, "R_at_5": 1.0, "R_at_10": 1.0, "median_rank": 1.0, "mean_rank": 1.0}
    for direction in ("speech_to_image", "image_to_speech"):
        assert {key: report[f"{direction}/{key}"] for key in expected} == expected


def test_ranks_by_hand() -> None:
    speech, images = directions(0, 50, 91), directions(10, 30, 45, 80)
    owner = torch.tensor([2, 1, 3])
    # Caption at 0: the image at 45 is third. At 50: the image at 30 comes after 45, before 80. At 91: 80 is nearest.
    assert of_images(speech, images, owner).tolist() == [3, 2, 1]
    # Image 1 (at 30): its caption, 20 away, is the nearest. Image 2 (at 45): 50 is nearer than 0, and 91 is
    # not. Image 3 (at 80): 91 is the nearest. Image 0 has no caption and is no query.
    assert of_captions(speech, images, owner).tolist() == [1, 2, 1]


def test_several_captions_of_an_image() -> None:
    """The best one counts, and those of the same image are no wrong answers."""
    speech, images = directions(170, 20, 10, 5), directions(0, 100)
    assert of_captions(speech, images, torch.tensor([0, 0, 0, 1])).tolist() == [2, 4]
    assert of_captions(speech, images, torch.tensor([0, 0, 1, 0])).tolist() == [1, 3]


def test_ties_count_against_the_query() -> None:
    speech = images = directions(0, 0, 0, 90)
    assert of_images(speech, images, torch.arange(4)).tolist() == [3, 3, 3, 1]
    assert of_captions(speech, images, torch.arange(4)).tolist() == [3, 3, 3, 1]


def test_ties_up_to_rounding_count_against_the_query() -> None:
    """Equal embeddings in float32, whose products a matrix kernel may round differently."""
    torch.manual_seed(0)
    speech = torch.nn.functional.normalize(torch.randn(1, 999), dim=-1).repeat(37, 1)
    images = torch.nn.functional.normalize(torch.randn(1, 999), dim=-1).repeat(41, 1)
    assert of_images(speech, images, torch.arange(37)).tolist() == [41] * 37
    assert of_captions(speech, images, torch.arange(37)).tolist() == [37] * 37


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
    assert of_images(speech, images, torch.arange(4)).tolist() == [2, 2, 4, 2]
    assert of_captions(speech, images, torch.arange(4)).tolist() == [1, 1, 4, 1]


def test_a_broken_caption_does_not_hide_the_images_other_one() -> None:
    speech, images = torch.eye(3)[[0, 0, 1, 2]], torch.eye(3)
    speech[0] = float("nan")
    owner = torch.tensor([0, 0, 1, 2])
    assert of_images(speech, images, owner).tolist() == [3, 1, 1, 1]
    # For the others it is a wrong answer that may be as similar.
    assert of_captions(speech, images, owner).tolist() == [1, 2, 2]


def test_median_rank_of_an_even_number_of_queries() -> None:
    report = recall_report(directions(0, 50), directions(40, 10), torch.tensor([0, 0]))
    # Caption at 0: the image at 40 is second; at 50: first.
    assert report["speech_to_image/median_rank"] == 1.5
    assert report["image_to_speech/median_rank"] == 1.0


def found_or_not(found: np.ndarray, captions: int = 1) -> tuple[Tensor, Tensor, Tensor]:
    """Images at right angles; all captions of an image lie on it, or opposite, where every other image is nearer."""
    images = torch.eye(len(found))
    owner = torch.arange(len(found)).repeat_interleave(captions)
    return torch.where(torch.from_numpy(found), 1.0, -1.0)[owner, None] * images[owner], images, owner


def bounds(report: dict[str, float], measure: str) -> tuple[float, float]:
    return report[f"{measure}_low"], report[f"{measure}_high"]


def test_intervals_enclose_each_measure_and_are_equal_for_equal_calls() -> None:
    torch.manual_seed(0)
    tensors = torch.randn(60, 8), torch.randn(30, 8), torch.arange(60) % 30
    report = recall_report(*tensors, intervals=True)
    plain = recall_report(*tensors)
    assert plain.items() <= report.items() and len(report) == 3 * len(plain)
    for name, value in plain.items():
        low, high = bounds(report, name)
        assert low <= value <= high and low < high
    assert recall_report(*tensors, intervals=True) == report


def test_intervals_hold_the_truth_about_as_often_as_they_say() -> None:
    chance = np.random.default_rng(0)
    covered = []
    for _ in range(100):
        report = recall_report(*found_or_not(chance.random(60) < 0.4), intervals=True)
        low, high = bounds(report, "speech_to_image/R_at_1")
        covered.append(low <= 0.4 <= high)
    # 95 of 100, give or take three deviations.
    assert 88 <= sum(covered) <= 100


def test_captions_of_an_image_are_drawn_together() -> None:
    """Four captions of an image that are found or missed together tell no more than one: half as sure as if apart."""
    found = np.random.default_rng(0).random(80) < 0.5
    low, high = bounds(recall_report(*found_or_not(found, captions=4), intervals=True), "speech_to_image/R_at_1")
    apart = np.random.default_rng(1).choice(np.repeat(found, 4), (1000, 320)).mean(axis=1)
    naive_low, naive_high = np.quantile(apart, [0.025, 0.975])
    assert 1.6 < (high - low) / (naive_high - naive_low) < 2.4


def test_intervals_equal_those_of_measuring_each_draw_by_itself() -> None:
    """The ranks of drawn images and of all their captions, written out; the draws are those of the fast path."""
    torch.manual_seed(1)
    owner = torch.tensor([0, 0, 0, 1, 2, 2, 4, 5, 5, 6])
    tensors = torch.randn(10, 3), torch.randn(8, 3), owner
    found, queries = ranks(*tensors), owner.unique().tolist()
    draws = torch.randint(6, (1000, 6), generator=torch.Generator().manual_seed(recall.SEED)).tolist()
    values: dict[str, list[float]] = {}
    for draw in draws:
        heard = [rank for place in draw for rank in found.of_images[owner == queries[place]].tolist()]
        seen = [found.of_captions[place].item() for place in draw]
        for direction, drawn in (("speech_to_image", heard), ("image_to_speech", seen)):
            values.setdefault(f"{direction}/R_at_5", []).append(sum(rank <= 5 for rank in drawn) / len(drawn))
            values.setdefault(f"{direction}/median_rank", []).append(float(np.median(drawn)))
            values.setdefault(f"{direction}/mean_rank", []).append(sum(drawn) / len(drawn))
    report = recall_report(*tensors, intervals=True)
    for name, drawn in values.items():
        assert bounds(report, name) == pytest.approx(tuple(np.quantile(drawn, [0.025, 0.975])))


def test_intervals_of_several_pools_are_of_their_mean() -> None:
    found = np.random.default_rng(0).random(80) < 0.5
    one = bounds(recall_report(*found_or_not(found), intervals=True), "speech_to_image/R_at_1")
    report = recall_report(*found_or_not(found), pool=20, folds=4, intervals=True)
    four = bounds(report, "speech_to_image/R_at_1")
    assert report["speech_to_image/R_at_1"] == pytest.approx(found.mean())
    assert four == pytest.approx(one, abs=0.04)


def test_intervals_do_not_depend_on_how_many_draws_are_held_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    tensors = found_or_not(np.arange(12) % 3 > 0)
    whole = recall_report(*tensors, intervals=True)
    monkeypatch.setattr(recall, "RESAMPLED_AT_ONCE", 500)
    assert recall_report(*tensors, intervals=True) == pytest.approx(whole)


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
