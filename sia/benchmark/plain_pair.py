"""The pair and its step as they are written first: packed nn.GRU, float32, contiguous. Its weights fit ours."""

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from sia.config import Model


class PlainSpeech(nn.Module):
    def __init__(self, latent_size: int, gru_layers: int) -> None:
        super().__init__()
        self.conv = nn.Conv1d(40, 64, 6, stride=2)
        self.gru = nn.GRU(64, latent_size // 2, gru_layers, batch_first=True, bidirectional=True)
        self.attention = nn.ModuleDict({"inner": nn.Linear(latent_size, 128), "outer": nn.Linear(128, latent_size)})

    def forward(self, frames: Tensor, num_frames: Tensor) -> Tensor:
        steps = self.conv(frames.transpose(1, 2)).transpose(1, 2)
        num_steps = (num_frames - 6) // 2 + 1
        packed = pack_padded_sequence(steps, num_steps, batch_first=True, enforce_sorted=False)
        states, _ = pad_packed_sequence(self.gru(packed)[0], batch_first=True)  # [B, S, D]
        scores = self.attention["outer"](torch.tanh(self.attention["inner"](states)))
        padding = torch.arange(states.shape[1]) >= num_steps[:, None]
        weights = scores.masked_fill(padding[..., None].to(scores.device), float("-inf")).softmax(dim=1)
        return normalize((weights * states).sum(dim=1), dim=-1)


class PlainImage(nn.Module):
    def __init__(self, model: Model) -> None:
        super().__init__()
        self.add_module(model.image.name, model.image.build(model.latent_size))

    def forward(self, images: Tensor) -> Tensor:
        (network,) = self.children()
        return normalize(network(images), dim=-1)


class PlainPair(nn.Module):
    def __init__(self, model: Model) -> None:
        super().__init__()
        self.speech = PlainSpeech(model.latent_size, model.gru_layers)
        self.image = PlainImage(model)

    def loss(self, frames: Tensor, num_frames: Tensor, images: Tensor, margin: float = 0.2) -> Tensor:
        """Frames [B, T, 40], valid frames [B], float images [B, 3, H, W], all different -> equation 3."""
        similarities = self.speech(frames, num_frames) @ self.image(images).T  # [B, B]
        right = similarities.diag()
        wrong = ~torch.eye(len(right), dtype=torch.bool, device=right.device)
        to_images = (similarities - right[:, None] + margin).clamp(min=0)
        to_captions = (similarities - right[None, :] + margin).clamp(min=0)
        return (to_images[wrong].sum() + to_captions[wrong].sum()) / len(right)
