"""The speech branch: MFCC frames to a unit vector (paper, section 4.1, equations 1 and 2).

Letters: B captions, T frames, S steps after the convolution, D latent size.
"""

import torch
from torch import Tensor, nn

from sia.models.recurrence import sent, states_of
from sia.models.sizes import ATTENTION_SIZE, CONV_CHANNELS, CONV_KERNEL
from sia.models.unit import unit

CONV_STRIDE = 2


class SpeechEncoder(nn.Module):
    """Conv1d, bidirectional GRU layers of hidden size D/2, and an attention over time for each of the D features.

    A caption's embedding does not depend on the padding beside it.
    """

    def __init__(self, latent_size: int, gru_layers: int, frame_features: int = 40) -> None:
        super().__init__()
        if latent_size % 2:
            raise ValueError(f"latent_size {latent_size} is odd; the two directions of the GRU share it equally")
        self.conv = nn.Conv1d(frame_features, CONV_CHANNELS, CONV_KERNEL, stride=CONV_STRIDE)
        self.gru = nn.GRU(CONV_CHANNELS, latent_size // 2, gru_layers, batch_first=True, bidirectional=True)
        self.attention = FeatureAttention(latent_size)

    def forward(self, frames: Tensor, num_frames: Tensor) -> Tensor:
        """Frames [B, T, 40] and their valid numbers [B] -> unit embeddings [B, D].

        Raises ValueError for a caption with fewer frames than the convolution's kernel.
        """
        states, num_steps = self.states(frames, num_frames, self.gru.num_layers)
        with torch.autocast(states.device.type, enabled=False):
            return unit(self.attention(states, valid_steps(num_steps, states)))

    def attention_over_time(self, frames: Tensor, num_frames: Tensor) -> tuple[Tensor, Tensor]:
        """Frames [B, T, 40] and their valid numbers [B] -> weights [B, S, D] and valid steps [B].

        The weights of a feature sum to one over a caption's valid steps, and are zero behind them.
        """
        states, num_steps = self.states(frames, num_frames, self.gru.num_layers)
        return self.attention.weights(states, valid_steps(num_steps, states)), num_steps

    def states(self, frames: Tensor, num_frames: Tensor, depth: int) -> tuple[Tensor, Tensor]:
        """The states over time after `depth` GRU layers; 0 is the convolution, whose W is 64, else W is D.

        Frames [B, T, 40] and their valid numbers [B] -> states [B, S, W] and valid steps [B]; zeros behind a caption's
        valid steps. The attention over the last layer's states makes the embedding.
        Raises ValueError for a depth that is not there, or a caption with fewer frames than the convolution's kernel.
        """
        if not 0 <= depth <= self.gru.num_layers:
            raise ValueError(f"depth {depth}: use 0 (the convolution) to {self.gru.num_layers}, the last GRU layer")
        num_steps = steps_of(num_frames.cpu())  # [B]
        # MFCC frames have numbers in the hundreds: bf16 would keep eight bits of them.
        with torch.autocast(frames.device.type, enabled=False):
            steps = self.conv(frames.transpose(1, 2)).transpose(1, 2)  # [B, S, 64]
        return states_of(self.gru, steps[:, : int(num_steps.max())], num_steps, depth), num_steps  # [B, S, W]


class FeatureAttention(nn.Module):
    """Weights over time from Linear, tanh, Linear, softmax, for each feature on its own (equations 1 and 2)."""

    def __init__(self, latent_size: int) -> None:
        super().__init__()
        self.inner = nn.Linear(latent_size, ATTENTION_SIZE)
        self.outer = nn.Linear(ATTENTION_SIZE, latent_size)

    def forward(self, states: Tensor, valid: Tensor) -> Tensor:
        """States [B, S, D] and a mask [B, S] of the steps that are no padding -> weighted sums [B, D]."""
        return (self.weights(states, valid) * states).sum(dim=1)

    def weights(self, states: Tensor, valid: Tensor) -> Tensor:
        """What each feature takes of each step [B, S, D]: one in all over the valid steps, nothing of the others."""
        scores = self.outer(torch.tanh(self.inner(states)))  # [B, S, D]
        return scores.masked_fill(~valid[..., None], float("-inf")).softmax(dim=1)


def steps_of(num_frames: Tensor) -> Tensor:
    """Valid steps [B] that the convolution makes of valid frames [B]."""
    if int(num_frames.min()) < CONV_KERNEL:
        raise ValueError(f"a caption has {int(num_frames.min())} frames; the convolution needs at least {CONV_KERNEL}")
    return (num_frames - CONV_KERNEL) // CONV_STRIDE + 1


def valid_steps(num_steps: Tensor, states: Tensor) -> Tensor:
    """[B] -> [B, S], true where a step is no padding, on the device of the states."""
    return sent(torch.arange(states.shape[1])[None] < num_steps[:, None], states.device)
