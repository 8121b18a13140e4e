"""Every loss against a loop over pairs that follows its equation, in value and in gradient; then by hand."""

import math
from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor

from sia import losses
from sia.losses import hinge, hinge_hardest, hinge_sampled, hinge_semihard, info_nce, masked_margin_softmax

ALONE_2, ALONE_3 = torch.eye(2).bool(), torch.eye(3).bool()
STEPS = (1e-6, 1e-7)
Loop = Callable[[np.ndarray, list[int]], float]


def loop_over_anchors(S: np.ndarray, image_ids: list[int], cost: Callable[[float, list[float]], float]) -> float:
    """Mean over the anchors of the cost of (aligned similarity, similarities of its negatives), in both directions."""
    count, total = len(image_ids), 0.0
    for i in range(count):
        others = [j for j in range(count) if image_ids[j] != image_ids[i]]
        total += cost(S[i, i], [S[i, j] for j in others]) + cost(S[i, i], [S[j, i] for j in others])
    return total / count


def all_pairs(aligned: float, negatives: list[float], margin: float) -> float:
    return sum(max(0.0, negative - aligned + margin) for negative in negatives)


def hardest(aligned: float, negatives: list[float], margin: float) -> float:
    return max([0.0, *(negative - aligned + margin for negative in negatives)])


def semihard(aligned: float, negatives: list[float], margin: float) -> float:
    below = [negative for negative in negatives if negative < aligned]
    return max(0.0, max(below) - aligned + margin) if below else 0.0


def softmax(aligned: float, negatives: list[float], margin: float, scale: float) -> float:
    right = math.exp(scale * (aligned - margin))
    return -math.log(right / (right + sum(math.exp(scale * negative) for negative in negatives)))


LOSSES = {
    "hinge": (partial(hinge, margin=0.3), partial(all_pairs, margin=0.3)),
    "hinge_hardest": (partial(hinge_hardest, margin=0.3), partial(hardest, margin=0.3)),
    "hinge_semihard": (partial(hinge_semihard, margin=0.3), partial(semihard, margin=0.3)),
    "masked_margin_softmax": (partial(masked_margin_softmax, margin=0.1), partial(softmax, margin=0.1, scale=1.0)),
    "masked_margin_softmax, scaled": (
        partial(masked_margin_softmax, margin=0.1, scale=20.0),
        partial(softmax, margin=0.1, scale=20.0),
    ),
    "info_nce": (partial(info_nce, temperature=0.07), partial(softmax, margin=0.0, scale=1 / 0.07)),
}


NAMES = [*LOSSES, "hinge_sampled"]


def loss_of(name: str) -> Callable[[Tensor, Tensor], Tensor]:
    return LOSSES[name][0] if name in LOSSES else hinge_sampled


def same(image_ids: list[int]) -> Tensor:
    ids = torch.tensor(image_ids)
    return ids[:, None] == ids[None, :]


def slopes(loop: Loop, S: np.ndarray, image_ids: list[int], step: float) -> np.ndarray:
    """The loop's gradient by central differences."""
    gradient = np.zeros_like(S)
    for place in np.ndindex(*S.shape):
        moved = np.zeros_like(S)
        moved[place] = step
        gradient[place] = (loop(S + moved, image_ids) - loop(S - moved, image_ids)) / (2 * step)
    return gradient


@pytest.mark.parametrize("name", LOSSES)
@settings(deadline=None, max_examples=40)
@given(st.integers(1, 6), st.integers(0, 10_000), st.integers(1, 6))
def test_it_and_its_gradient_are_the_loops_over_its_equation(name: str, count: int, seed: int, num_images: int) -> None:
    loss, cost = LOSSES[name]
    chance = np.random.default_rng(seed)
    S, image_ids = chance.uniform(-1, 1, (count, count)), chance.integers(0, num_images, count).tolist()
    similarities = torch.from_numpy(S.copy()).requires_grad_()
    value = loss(similarities, same(image_ids))
    assert value.item() == pytest.approx(loop_over_anchors(S, image_ids, cost), rel=1e-12, abs=1e-12)
    value.backward()
    expected, closer = (slopes(lambda S, ids: loop_over_anchors(S, ids, cost), S, image_ids, step) for step in STEPS)
    # A kink of the hinge within the step of the differences: the slope is not defined there.
    assume(np.allclose(expected, closer, atol=1e-5))
    np.testing.assert_allclose(similarities.grad, expected, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_a_batch_of_one_image_costs_nothing(name: str) -> None:
    similarities = torch.rand(4, 4, requires_grad=True)
    value = loss_of(name)(similarities, same([1, 1, 1, 1]))
    value.backward()
    assert value.item() == 0.0
    assert not similarities.grad.any(), "and no gradient that is not a number"


@pytest.mark.parametrize("name", LOSSES)
def test_swapping_captions_and_images_changes_nothing(name: str) -> None:
    similarities, mask = torch.rand(6, 6, generator=torch.Generator().manual_seed(3)), same([0, 1, 2, 1, 3, 4])
    torch.testing.assert_close(loss_of(name)(similarities, mask), loss_of(name)(similarities.T, mask))


@pytest.mark.parametrize(
    "name", ["hinge", "hinge_hardest", "hinge_semihard", "hinge_sampled", "masked_margin_softmax", "info_nce"]
)
@pytest.mark.parametrize(("similarities", "mask"), [((2, 3), (2, 3)), ((4,), (4,)), ((3, 3), (2, 2)), ((3, 3), (3,))])
def test_wrong_shapes_are_refused(name: str, similarities: tuple[int, ...], mask: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="must be"):
        getattr(losses, name)(torch.zeros(similarities), torch.zeros(mask).bool())


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("place", "counts"),
    [
        pytest.param((0, 0), True, id="an aligned pair"),
        pytest.param((0, 2), True, id="a caption's negative"),
        pytest.param((2, 1), True, id="an image's negative"),
        pytest.param((0, 1), False, id="another caption of the image"),
    ],
)
def test_what_is_not_a_number_is_passed_on_where_it_counts(name: str, place: tuple[int, int], counts: bool) -> None:
    """Captions 0 and 1 share an image, so that each has one negative, image 2."""
    similarities = torch.rand(3, 3, generator=torch.Generator().manual_seed(0))
    similarities[place] = float("nan")
    assert loss_of(name)(similarities, same([4, 4, 5])).isnan().item() is counts


@pytest.mark.parametrize(
    ("similarities", "image_ids", "violations"),
    [
        # Caption 0 against image 1: 0.8 - 0.9 + 0.2 = 0.1. Image 1 against caption 0: 0.8 - 0.7 + 0.2 = 0.3.
        # Caption 1 and image 0 meet at 0.1, which no margin reaches.
        pytest.param([[0.9, 0.8], [0.1, 0.7]], [0, 1], [0.1, 0.3], id="two pairs"),
        # Rows (captions): 0: 0.1 from column 1; 1: 0.3 from column 0; 2: none.
        # Columns (images): 0: 0.3 from row 1, 0.2 from row 2; 1: 0.1 from row 0; 2: none.
        pytest.param(
            [[0.5, 0.4, 0.0], [0.6, 0.5, 0.1], [0.5, -0.2, 0.9]], [0, 1, 2], [0.1, 0.3, 0.3, 0.2, 0.1], id="three"
        ),
        pytest.param([[0.5, 0.6], [-0.9, 1.0]], [0, 1], [0.3], id="a caption prefers a wrong image"),
        pytest.param([[0.5, -0.9], [0.6, 1.0]], [0, 1], [0.3], id="an image prefers a wrong caption"),
        pytest.param([[1.0, 0.75], [0.5, 1.0]], [0, 1], [0.0], id="satisfied margins cost nothing"),
        pytest.param([[0.5, 0.9, 0.0], [0.9, 0.5, 0.0], [0.0, 0.0, 1.0]], [7, 7, 8], [0.0], id="captions of one image"),
    ],
)
def test_the_hinge_by_hand(similarities: list[list[float]], image_ids: list[int], violations: list[float]) -> None:
    expected = torch.tensor(sum(violations) / len(image_ids))
    torch.testing.assert_close(hinge(torch.tensor(similarities), same(image_ids), 0.2), expected)


def test_the_hardest_and_the_semihard_negative_by_hand() -> None:
    similarities = torch.tensor([[0.5, 0.6, 0.4], [0.0, 0.9, 0.0], [0.0, 0.0, 0.9]])
    # Caption 0: image 1 at 0.6 is worse than image 2 at 0.4; no image comes near another anchor.
    torch.testing.assert_close(hinge_hardest(similarities, ALONE_3, 0.2), torch.tensor((0.6 - 0.5 + 0.2) / 3))
    # Negatives above the aligned are passed over, and one exactly as similar is not semihard.
    torch.testing.assert_close(hinge_semihard(similarities, ALONE_3, 0.2), torch.tensor((0.4 - 0.5 + 0.2) / 3))
    assert hinge_semihard(torch.tensor([[0.5, 0.5], [-1.0, 1.0]]), ALONE_2, 0.2).item() == 0.0


class TestSampled:
    def test_it_is_the_hinge_of_the_negatives_it_drew(self) -> None:
        torch.manual_seed(0)
        ids = [0, 1, 2, 1, 3]
        similarities = torch.rand(5, 5, dtype=torch.float64, requires_grad=True)
        # With a margin that every negative violates, the gradient tells which were drawn: 1 / B for each.
        value = hinge_sampled(similarities, same(ids), margin=2.0)
        value.backward()
        S, drawn = similarities.detach(), (similarities.grad * 5).round().int()
        drawn += 2 * torch.eye(5, dtype=torch.int)
        assert drawn.sum() == 10
        assert drawn.min() == 0
        assert not drawn[same(ids)].any(), "never a caption of the same image"
        expected = sum(
            # A place may be drawn by its row and by its column.
            (S[i, j] + 2.0) * drawn[i, j]
            for i in range(5)
            for j in range(5)
        )
        assert value.item() == pytest.approx((expected - 2 * S.diagonal().sum()).item() / 5)

    def test_every_negative_is_as_likely(self) -> None:
        mask, counts = same([0, 1, 2, 0]), torch.zeros(4, 4)
        generator = torch.Generator().manual_seed(1)
        for _ in range(2000):
            similarities = torch.zeros(4, 4, requires_grad=True)
            hinge_sampled(similarities, mask, margin=1.0, generator=generator).backward()
            counts += (similarities.grad + torch.eye(4) * 0.5) * 4
        shares = counts / 2000
        # Anchors 0 and 3 have two negatives, 1 and 2 have three; each place counts as a row's draw and a column's.
        torch.testing.assert_close(shares[[0, 1], [1, 0]], torch.tensor([5 / 6, 5 / 6]), atol=0.05, rtol=0)
        torch.testing.assert_close(shares[[1, 2], [2, 1]], torch.tensor([2 / 3, 2 / 3]), atol=0.05, rtol=0)

    def test_the_same_generator_draws_the_same(self) -> None:
        similarities, mask = torch.rand(8, 8), torch.eye(8).bool()
        values = [
            hinge_sampled(similarities, mask, generator=torch.Generator().manual_seed(seed)).item()
            for seed in (5, 5, 6)
        ]
        assert values[0] == values[1] != values[2]


class TestSoftmax:
    def test_two_pairs_by_hand(self) -> None:
        similarities = torch.zeros(2, 2)
        # Every candidate is as likely: log 2 in each direction.
        torch.testing.assert_close(info_nce(similarities, ALONE_2, 0.5), torch.tensor(2 * math.log(2)))
        # The margin of log 3 makes the right one three times less likely: log 4 in each direction.
        loss = masked_margin_softmax(similarities, ALONE_2, margin=math.log(3), scale=1.0)
        torch.testing.assert_close(loss, torch.tensor(2 * math.log(4)))

    def test_large_similarities_do_not_overflow(self) -> None:
        assert torch.isfinite(masked_margin_softmax(torch.rand(4, 4) * 1e4, torch.eye(4).bool()))

    def test_a_learned_temperature_has_the_gradient_of_the_loop(self) -> None:
        chance = np.random.default_rng(0)
        S, ids, at = chance.uniform(-1, 1, (4, 4)), [0, 1, 1, 2], 0.3
        temperature = torch.tensor(at, dtype=torch.float64, requires_grad=True)
        info_nce(torch.from_numpy(S), same(ids), temperature).backward()

        def loop(value: float) -> float:
            return loop_over_anchors(S, ids, partial(softmax, margin=0.0, scale=1 / value))

        assert temperature.grad.item() == pytest.approx((loop(at + 1e-6) - loop(at - 1e-6)) / 2e-6, rel=1e-6)
