"""The speech branch: MFCC frames to a unit vector (paper, section 4.1, equations 1 and 2).

Letters: B captions, T frames, S steps after the convolution, D latent size.
"""

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from sia.models.parameter_counts import ATTENTION_SIZE, CONV_CHANNELS, CONV_KERNEL
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
        return unit(self.attention(states, valid_steps(num_steps, states)))

    def states(self, frames: Tensor, num_frames: Tensor, depth: int) -> tuple[Tensor, Tensor]:
        """The states over time after `depth` GRU layers; 0 is the convolution, whose W is 64, else W is D.

        Frames [B, T, 40] and their valid numbers [B] -> states [B, S, W] and valid steps [B]; what lies behind a
        caption's valid steps is padding. The attention over the last layer's states makes the embedding.
        Raises ValueError for a depth that is not there, or a caption with fewer frames than the convolution's kernel.
        """
        if not 0 <= depth <= self.gru.num_layers:
            raise ValueError(f"depth {depth}: use 0 (the convolution) to {self.gru.num_layers}, the last GRU layer")
        num_steps = steps_of(num_frames.cpu())  # [B]
        steps = self.conv(frames.transpose(1, 2)).transpose(1, 2)  # [B, S, 64]
        steps = steps[:, : int(num_steps.max())]
        # Torch gives the last layer's states of a packed sequence only.
        if steps.is_cuda and depth == self.gru.num_layers:
            return self._packed(steps, num_steps), num_steps  # [B, S, D]
        return self._turned(steps, num_steps, depth), num_steps  # [B, S, W]

    def _packed(self, steps: Tensor, num_steps: Tensor) -> Tensor:
        # Autocast would run the GRU in float16 whatever it is asked for, and float16 needs a scaled loss.
        with torch.autocast(steps.device.type, enabled=False):
            steps = steps.to(torch.promote_types(steps.dtype, torch.float32))
            packed = pack_padded_sequence(steps, num_steps, batch_first=True, enforce_sorted=False)
            return pad_packed_sequence(self.gru(packed)[0], batch_first=True)[0]

    def _turned(self, steps: Tensor, num_steps: Tensor, depth: int) -> Tensor:
        """The states of the first `depth` layers without packing, which takes a CPU four times as long.

        The backward direction reads each caption's valid part turned round, so that padding comes last there too.
        """
        turn = turned_order(num_steps, steps.shape[1]).to(steps.device)  # [B, S]
        for layer in range(depth):
            forward = self._one_direction(steps, f"l{layer}")
            backward = self._one_direction(_reorder(steps, turn), f"l{layer}_reverse")
            steps = torch.cat([forward, _reorder(backward, turn)], dim=-1)
        return steps

    def _one_direction(self, steps: Tensor, suffix: str) -> Tensor:
        weights = [getattr(self.gru, f"{kind}_{suffix}") for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]
        start = steps.new_zeros(1, steps.shape[0], self.gru.hidden_size)
        bias, layers, dropout, bidirectional, batch_first = True, 1, 0.0, False, True
        states, _ = torch.gru(steps, start, weights, bias, layers, dropout, self.training, bidirectional, batch_first)
        return states


class FeatureAttention(nn.Module):
    """Weights over time from Linear, tanh, Linear, softmax, for each feature on its own (equations 1 and 2)."""

    def __init__(self, latent_size: int) -> None:
        super().__init__()
        self.inner = nn.Linear(latent_size, ATTENTION_SIZE)
        self.outer = nn.Linear(ATTENTION_SIZE, latent_size)

    def forward(self, states: Tensor, valid: Tensor) -> Tensor:
        """States [B, S, D] and a mask [B, S] of the steps that are no padding -> weighted sums [B, D]."""
        scores = self.outer(torch.tanh(self.inner(states)))  # [B, S, D]
        weights = scores.masked_fill(~valid[..., None], float("-inf")).softmax(dim=1)
        return (weights * states).sum(dim=1)


def steps_of(num_frames: Tensor) -> Tensor:
    """Valid steps [B] that the convolution makes of valid frames [B]."""
    if int(num_frames.min()) < CONV_KERNEL:
        raise ValueError(f"a caption has {int(num_frames.min())} frames; the convolution needs at least {CONV_KERNEL}")
    return (num_frames - CONV_KERNEL) // CONV_STRIDE + 1


def valid_steps(num_steps: Tensor, states: Tensor) -> Tensor:
    """[B] -> [B, S], true where a step is no padding, on the device of the states."""
    return (torch.arange(states.shape[1])[None] < num_steps[:, None]).to(states.device)


def turned_order(num_steps: Tensor, length: int) -> Tensor:
    """[B] -> [B, S], the positions that turn each caption's valid part round and leave its padding in place."""
    position = torch.arange(length)[None]
    return torch.where(position < num_steps[:, None], num_steps[:, None] - 1 - position, position)


def _reorder(steps: Tensor, order: Tensor) -> Tensor:
    return steps.gather(1, order[..., None].expand(-1, -1, steps.shape[-1]))
