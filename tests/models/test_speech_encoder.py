"""The speech branch against a reference that embeds one caption at a time, without padding or masks."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from sia.models.speech_encoder import FeatureAttention, SpeechEncoder
from sia.models.unit import unit

torch.set_num_threads(1)
LENGTHS = (6, 7, 31, 12, 160)


def encoder(layers: int = 2, latent: int = 10, dtype: torch.dtype = torch.float64) -> SpeechEncoder:
    torch.manual_seed(0)
    return SpeechEncoder(latent, layers).to(dtype)


def captions(*lengths: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    chance = torch.Generator().manual_seed(seed)
    return [torch.randn(length, 40, generator=chance, dtype=dtype) for length in lengths]


def padded(frames: list[Tensor], filler: float = 0.0, extra: int = 0) -> tuple[Tensor, Tensor]:
    """Captions one below the other, what is no caption filled with numbers about as large as `filler`."""
    num_frames = torch.tensor([len(caption) for caption in frames])
    batch = filler * torch.randn(len(frames), int(num_frames.max()) + extra, 40, dtype=frames[0].dtype)
    for row, caption in enumerate(frames):
        batch[row, : len(caption)] = caption
    return batch, num_frames


def naive_attention(attention: FeatureAttention, states: Tensor) -> Tensor:
    """Equations 1 and 2 for one caption's states [S, D], feature by feature."""
    scores = [attention.outer(torch.tanh(attention.inner(state))) for state in states]
    features = []
    for feature in range(states.shape[1]):
        shares = torch.stack([score[feature].exp() for score in scores])
        features.append((shares / shares.sum() * states[:, feature]).sum())
    return torch.stack(features)


def naive(speech: SpeechEncoder, frames: Tensor) -> Tensor:
    """The embedding [D] of one caption [T, 40] alone: convolution, torch's own GRU, attention, unit length."""
    steps = speech.conv(frames.T[None]).transpose(1, 2)  # [1, S, 64]
    features = naive_attention(speech.attention, speech.gru(steps)[0][0])
    return features / features.square().sum().sqrt()


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_equals_the_naive_reference(layers: int) -> None:
    speech, frames = encoder(layers), captions(*LENGTHS)
    embedded = speech(*padded(frames))
    expected = torch.stack([naive(speech, caption) for caption in frames])
    torch.testing.assert_close(embedded, expected, rtol=0, atol=1e-12)


@settings(deadline=None, max_examples=25)
@given(lengths=st.lists(st.integers(6, 40), min_size=1, max_size=5), seed=st.integers(0, 1000))
def test_equals_the_naive_reference_for_any_lengths(lengths: list[int], seed: int) -> None:
    speech, frames = encoder(), captions(*lengths, seed=seed)
    expected = torch.stack([naive(speech, caption) for caption in frames])
    torch.testing.assert_close(speech(*padded(frames)), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_no_matter_what_stands_beside_it(dtype: torch.dtype, tolerance: float) -> None:
    speech, (short, long) = encoder(dtype=dtype), captions(30, 150, dtype=dtype)
    alone = speech(*padded([short]))
    for batch in ([short, long], [short, short], [short, *captions(6, 80, dtype=dtype)]):
        beside = speech(*padded(batch, filler=100, extra=9))
        torch.testing.assert_close(beside[:1], alone, rtol=0, atol=tolerance)


def test_padding_has_no_gradient() -> None:
    speech, (batch, num_frames) = encoder(), padded(captions(20, 50), filler=1)
    batch.requires_grad_()
    speech(batch, num_frames).sum().backward()
    assert batch.grad is not None and not batch.grad[0, 20:].any() and batch.grad[0, :20].any()


def test_attention_ignores_masked_steps() -> None:
    attention = FeatureAttention(4).double()
    states = torch.randn(2, 5, 4, dtype=torch.float64)
    valid = torch.tensor([[True, True, True, False, False], [True] * 5])
    changed = states.clone()
    changed[0, 3:] = 1000.0
    assert torch.equal(attention(states, valid), attention(changed, valid))
    torch.testing.assert_close(attention(states, valid)[0], naive_attention(attention, states[0, :3]))


def test_attention_without_scores_is_the_mean_over_time() -> None:
    attention = FeatureAttention(2)
    torch.nn.init.zeros_(attention.outer.weight)
    torch.nn.init.zeros_(attention.outer.bias)
    states = torch.tensor([[[1.0, 10.0], [3.0, 20.0], [99.0, 99.0]]])
    assert torch.equal(attention(states, torch.tensor([[True, True, False]])), torch.tensor([[2.0, 15.0]]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_embeddings_have_unit_norm(dtype: torch.dtype) -> None:
    speech = encoder(dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
        embedded = speech(*padded(captions(*LENGTHS, dtype=torch.float32)))
    assert embedded.shape == (len(LENGTHS), 10)
    torch.testing.assert_close(embedded.float().norm(dim=-1), torch.ones(len(LENGTHS)), rtol=0, atol=1e-6)


def test_bf16_hardly_moves_an_embedding_of_900_frames() -> None:
    """Of frames like those of MFCC, whose first coefficient is in the hundreds."""
    torch.manual_seed(0)
    speech, frames = SpeechEncoder(128, 3), torch.randn(2, 900, 40) * 20
    frames[..., 0] -= 300
    exactly = speech(frames, torch.tensor([900, 640]))
    with torch.autocast("cpu", torch.bfloat16):
        found = speech(frames, torch.tensor([900, 640]))
    assert (found - exactly).norm(dim=1).max() < 0.01


def test_too_few_frames_are_refused() -> None:
    with pytest.raises(ValueError, match=r"5 frames.*at least 6"):
        encoder()(*padded(captions(40, 5)))


def test_an_odd_latent_size_is_refused() -> None:
    with pytest.raises(ValueError, match="latent_size 7"):
        SpeechEncoder(7, 1)


def test_the_attention_is_that_which_makes_the_embedding_and_sums_to_one() -> None:
    speech, (frames, num_frames) = encoder(), padded(captions(*LENGTHS), filler=100.0, extra=9)
    weights, num_steps = speech.attention_over_time(frames, num_frames)
    states, _ = speech.states(frames, num_frames, 2)
    torch.testing.assert_close(unit((weights * states).sum(dim=1)), speech(frames, num_frames), rtol=0, atol=1e-12)
    torch.testing.assert_close(weights.sum(dim=1), torch.ones(len(LENGTHS), 10, dtype=torch.float64))
    assert not weights[torch.arange(weights.shape[1])[None] >= num_steps[:, None]].any()
