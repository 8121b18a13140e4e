"""A layer's states over time, against torch's own GRU over one caption at a time."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from sia.errors import UsageError
from sia.inference.pair_settings import depth_of
from sia.models.speech_encoder import SpeechEncoder, valid_steps
from sia.models.unit import unit

LENGTHS = [6, 7, 31, 12, 60]


def encoder(layers: int = 3) -> SpeechEncoder:
    torch.manual_seed(0)
    return SpeechEncoder(8, layers).double()


def captions(lengths: list[int]) -> tuple[Tensor, Tensor]:
    """Padded with numbers that would be seen."""
    chance = torch.Generator().manual_seed(1)
    frames = torch.randn(len(lengths), max(lengths) + 3, 40, generator=chance, dtype=torch.float64)
    return frames, torch.tensor(lengths)


def naive(speech: SpeechEncoder, frames: Tensor, depth: int) -> Tensor:
    """The states [S, W] of one caption [T, 40] alone."""
    steps = speech.conv(frames.T[None]).transpose(1, 2)
    if not depth:
        return steps[0]
    gru = nn.GRU(64, 4, depth, batch_first=True, bidirectional=True).double()
    gru.load_state_dict({name: speech.gru.state_dict()[name] for name in gru.state_dict()})
    return gru(steps)[0][0]


@settings(deadline=None, max_examples=20)
@given(lengths=st.lists(st.integers(6, 40), min_size=1, max_size=5), depth=st.integers(0, 3))
def test_states_equal_the_naive_reference(lengths: list[int], depth: int) -> None:
    speech, (frames, num_frames) = encoder(), captions(lengths)
    states, num_steps = speech.states(frames, num_frames, depth)
    assert states.shape[2] == (8 if depth else 64)
    for row, length in enumerate(lengths):
        expected = naive(speech, frames[row, :length], depth)
        assert int(num_steps[row]) == len(expected)
        torch.testing.assert_close(states[row, : len(expected)], expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("layers", [1, 3])
def test_attention_over_the_last_states_is_the_embedding(layers: int) -> None:
    speech, (frames, num_frames) = encoder(layers), captions(LENGTHS)
    states, num_steps = speech.states(frames, num_frames, layers)
    embedded = unit(speech.attention(states, valid_steps(num_steps, states)))
    assert torch.equal(embedded, speech(frames, num_frames))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("depth", [0, 1, 2, 3])
def test_a_gpu_gives_the_same_states(depth: int) -> None:
    speech, (frames, num_frames) = encoder(), captions(LENGTHS)
    expected, num_steps = speech.states(frames, num_frames, depth)
    states, _ = speech.cuda().states(frames.cuda(), num_frames, depth)
    for row, length in enumerate(num_steps):
        torch.testing.assert_close(states[row, :length].cpu(), expected[row, :length], rtol=0, atol=1e-9)


@pytest.mark.parametrize("depth", [-1, 4])
def test_a_depth_that_is_not_there(depth: int) -> None:
    with pytest.raises(ValueError, match=f"depth {depth}: use 0"):
        encoder().states(*captions([20]), depth)


def test_layers_are_named_by_their_place() -> None:
    assert [depth_of(name, 2) for name in ("conv", "gru1", "gru2")] == [0, 1, 2]
    for name in ("gru3", "gru0", "GRU1", "attention", ""):
        with pytest.raises(UsageError, match="use one of conv, gru1, gru2"):
            depth_of(name, 2)
