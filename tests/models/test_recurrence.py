"""The recurrence against torch's own GRU over one caption at a time."""

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from sia.models.recurrence import packed, states_of, turned

torch.set_num_threads(1)
CASE = {
    "lengths": st.lists(st.integers(1, 12), min_size=1, max_size=5),
    "depth": st.integers(1, 3),
    "hidden": st.integers(1, 6),
    "seed": st.integers(0, 1000),
}


def layers(depth: int, hidden: int, width: int = 3, dtype: torch.dtype = torch.float64) -> nn.GRU:
    return nn.GRU(width, hidden, depth, batch_first=True, bidirectional=True, dtype=dtype)


def captions(gru: nn.GRU, lengths: list[int]) -> tuple[Tensor, Tensor]:
    """Padded steps [B, S, F], the padding random and large, and their valid numbers [B]."""
    num_steps = torch.tensor(lengths)
    steps = torch.randn(len(lengths), max(lengths), gru.input_size, dtype=gru.weight_ih_l0.dtype)
    steps[torch.arange(max(lengths)) >= num_steps[:, None]] *= 100
    return steps.requires_grad_(), num_steps


def naive(gru: nn.GRU, steps: Tensor, num_steps: Tensor, depth: int) -> Tensor:
    """Each caption alone, by torch; zeros behind it."""
    first = layers(depth, gru.hidden_size, gru.input_size, steps.dtype)
    values = {name: weight for name, weight in gru.named_parameters() if name in first.state_dict()}
    captions = [row[None, :length] for row, length in zip(steps, num_steps, strict=True)]
    alone = [torch.func.functional_call(first, values, (caption,))[0][0] for caption in captions]
    return nn.utils.rnn.pad_sequence(alone, batch_first=True)


def with_gradients(path: Callable[..., Tensor], gru: nn.GRU, steps: Tensor, num_steps: Tensor, depth: int):
    """States, and the gradients by steps and every weight of a sum of all states, the padding's too."""
    states = path(gru, steps, num_steps, depth)
    direction = torch.randn(states.shape, generator=torch.Generator().manual_seed(3)).to(states.dtype)
    inputs = [steps, *gru.parameters()]
    gradients = torch.autograd.grad((states * direction).sum(), inputs, allow_unused=True, materialize_grads=True)
    return [states, *gradients]


@pytest.mark.parametrize("path", [turned, packed])
@settings(deadline=None, max_examples=40)
@given(**CASE)
def test_states_and_gradients_are_those_of_each_caption_alone(
    path: Callable[..., Tensor], lengths: list[int], depth: int, hidden: int, seed: int
) -> None:
    """Also of the first layers of a deeper GRU."""
    torch.manual_seed(seed)
    gru = layers(3, hidden)
    case = (gru, *captions(gru, lengths), depth)
    for found, expected in zip(with_gradients(path, *case), with_gradients(naive, *case), strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


def test_the_written_gradient_is_that_of_finite_differences() -> None:
    torch.manual_seed(0)
    gru = layers(2, 3)
    steps, num_steps = captions(gru, [4, 1, 6])
    steps = (steps.detach() / 10).requires_grad_()
    assert torch.autograd.gradcheck(lambda *_: turned(gru, steps, num_steps, 2), [steps, *gru.parameters()])


@pytest.mark.parametrize(("depth", "hidden"), [(4, 32), (1, 128)])
def test_float32_is_as_near_to_float64_as_torchs_own(depth: int, hidden: int) -> None:
    torch.manual_seed(0)
    gru = layers(depth, hidden, 64, torch.float32)
    steps, num_steps = captions(gru, [160, 150, 90, 7])
    ours, theirs = (with_gradients(path, gru, steps, num_steps, depth) for path in (turned, packed))
    exact = with_gradients(packed, gru.double(), steps.detach().double().requires_grad_(), num_steps, depth)
    for found, known, expected in zip(ours, theirs, exact, strict=True):
        scale = expected.abs().max()
        assert (found - expected).abs().max() < 2e-6 * scale
        assert (found - known).abs().max() < 2e-6 * scale


def test_padding_has_no_state_and_no_gradient() -> None:
    gru = layers(2, 4)
    states, by_steps, *_ = with_gradients(states_of, gru, *captions(gru, [9, 3]), 2)
    assert not states[1, 3:].any() and states[1, :3].all()
    assert not by_steps[1, 3:].any() and by_steps[1, :3].all()


def test_without_a_gradient_the_states_are_the_same() -> None:
    gru = layers(2, 4)
    case = (gru, *captions(gru, [9, 3]), 2)
    with torch.inference_mode():
        found = states_of(*case)
    assert torch.equal(found, states_of(*case))


def test_under_autocast_states_are_float32_and_near_those_without_it() -> None:
    """Over 300 steps: what bf16 rounds, the products over all steps, does not add up from state to state."""
    torch.manual_seed(0)
    gru = layers(2, 64, 32, dtype=torch.float32)
    case = (gru, *captions(gru, [300, 211, 300]), 2)
    exactly = with_gradients(states_of, *case)
    with torch.autocast("cpu", torch.bfloat16):
        found = with_gradients(states_of, *case)
    assert found[0].dtype == torch.float32 and not torch.equal(found[0], found[0].bfloat16().float())
    assert 0 < (found[0] - exactly[0]).abs().max() < 0.01
    for near, gradient in zip(found[1:], exactly[1:], strict=True):
        assert torch.cosine_similarity(near.flatten(), gradient.flatten(), dim=0) > 0.999


def test_under_autocast_steps_in_bf16_are_taken_as_float32() -> None:
    gru = layers(1, 4, dtype=torch.float32)
    steps, num_steps = captions(gru, [9, 3])
    with torch.autocast("cpu", torch.float16):
        found = states_of(gru, steps.bfloat16(), num_steps, 1)
    assert torch.equal(found, states_of(gru, steps.bfloat16().float(), num_steps, 1))
