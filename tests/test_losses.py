import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from sia.losses import hinge

ALONE_2, ALONE_3 = torch.eye(2).bool(), torch.eye(3).bool()


def naive(similarities: np.ndarray, image_ids: list[int], margin: float) -> float:
    """Equation 3, pair by pair."""
    total, count = 0.0, len(image_ids)
    for i in range(count):
        for j in range(count):
            if image_ids[i] != image_ids[j]:
                total += max(0.0, similarities[i, j] - similarities[i, i] + margin)
                total += max(0.0, similarities[j, i] - similarities[i, i] + margin)
    return total / count


def same(image_ids: list[int]) -> Tensor:
    ids = torch.tensor(image_ids)
    return ids[:, None] == ids[None, :]


def test_two_pairs_by_hand() -> None:
    similarities = torch.tensor([[0.9, 0.8], [0.1, 0.7]])
    # Caption 0 against image 1: 0.8 - 0.9 + 0.2 = 0.1. Image 1 against caption 0: 0.8 - 0.7 + 0.2 = 0.3.
    # Caption 1 and image 0 meet at 0.1, which no margin reaches.
    torch.testing.assert_close(hinge(similarities, ALONE_2, 0.2), torch.tensor((0.1 + 0.3) / 2))


def test_three_pairs_by_hand() -> None:
    similarities = torch.tensor([[0.5, 0.4, 0.0], [0.6, 0.5, 0.1], [0.5, -0.2, 0.9]])
    # Rows (captions): 0: 0.1 from column 1; 1: 0.3 from column 0; 2: none.
    # Columns (images): 0: 0.3 from row 1, 0.2 from row 2; 1: 0.1 from row 0; 2: none.
    torch.testing.assert_close(hinge(similarities, ALONE_3, 0.2), torch.tensor((0.1 + 0.3 + 0.3 + 0.2 + 0.1) / 3))


@pytest.mark.parametrize(
    "similarities",
    [
        pytest.param([[0.5, 0.6], [-0.9, 1.0]], id="a caption prefers a wrong image"),
        pytest.param([[0.5, -0.9], [0.6, 1.0]], id="an image prefers a wrong caption"),
    ],
)
def test_each_direction_counts_alone(similarities: list[list[float]]) -> None:
    torch.testing.assert_close(hinge(torch.tensor(similarities), ALONE_2, 0.2), torch.tensor(0.3 / 2))


def test_satisfied_margins_cost_nothing() -> None:
    assert hinge(torch.tensor([[1.0, 0.75], [0.5, 1.0]]), ALONE_2, 0.25).item() == 0.0


def test_captions_of_one_image_are_no_negatives() -> None:
    similarities = torch.tensor([[0.5, 0.9, 0.0], [0.9, 0.5, 0.0], [0.0, 0.0, 1.0]])
    assert hinge(similarities, same([7, 7, 8]), 0.2).item() == 0.0
    assert hinge(similarities, same([6, 7, 8]), 0.2).item() > 0.0


def test_a_batch_of_one_image_costs_nothing() -> None:
    assert hinge(torch.rand(4, 4), same([1, 1, 1, 1])).item() == 0.0


@settings(deadline=None, max_examples=100)
@given(st.integers(1, 7), st.integers(0, 10_000), st.floats(0, 1), st.integers(1, 7))
def test_equals_the_naive_loop(count: int, seed: int, margin: float, num_images: int) -> None:
    chance = np.random.default_rng(seed)
    similarities = chance.uniform(-1, 1, (count, count))
    image_ids = chance.integers(0, num_images, count).tolist()
    loss = hinge(torch.from_numpy(similarities), same(image_ids), margin)
    assert loss.item() == pytest.approx(naive(similarities, image_ids, margin), rel=1e-12, abs=1e-12)


def test_gradient_against_finite_differences() -> None:
    torch.manual_seed(0)
    similarities = torch.rand(5, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda s: hinge(s, same([0, 1, 2, 1, 3]), 0.2), similarities)


@pytest.mark.parametrize(("similarities", "mask"), [((2, 3), (2, 3)), ((4,), (4,)), ((3, 3), (2, 2)), ((3, 3), (3,))])
def test_wrong_shapes_are_refused(similarities: tuple[int, ...], mask: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="must be"):
        hinge(torch.zeros(similarities), torch.zeros(mask).bool())
