"""The configured loss over the batch of all ranks, and the one parameter that a loss may learn: a temperature."""

import math

import numpy as np
import torch
from torch import Tensor, nn

from sia import losses
from sia.config import Loss
from sia.distributed import Ranks, gather_with_gradient

LARGEST_SCALE = 100.0  # as in CLIP: a temperature that falls further makes training unstable


class Objective(nn.Module):
    """A loss of sia/losses.py with the settings of `loss:`.

    The draws of hinge_sampled depend on seed, stage and step alone: ranks agree on them, and a resume repeats them.
    """

    def __init__(self, loss: Loss, seed: int = 0, stage: int = 1) -> None:
        super().__init__()
        self.settings, self.seed, self.stage = loss, seed, stage
        if loss.name == "info_nce" and loss.learn_temperature:
            self.log_scale = nn.Parameter(torch.tensor(-math.log(loss.temperature)))

    def forward(self, similarities: Tensor, same_image: Tensor, step: int = 0) -> Tensor:
        """Similarities [G, G] and mask [G, G] of the whole batch -> scalar."""
        loss = self._loss(similarities, same_image, step)
        return loss * len(similarities) if self.settings.normaliser == "sum" else loss

    def _loss(self, similarities: Tensor, same_image: Tensor, step: int) -> Tensor:
        settings = self.settings
        if settings.name == "info_nce":
            return losses.info_nce(similarities, same_image, temperature=self.temperature)
        if settings.name == "masked_margin_softmax":
            return losses.masked_margin_softmax(similarities, same_image, margin=settings.margin, scale=settings.scale)
        if settings.name == "hinge_sampled":
            generator = self._generator(step)
            return losses.hinge_sampled(similarities, same_image, margin=settings.margin, generator=generator)
        hinge = {"hinge": losses.hinge, "hinge_hardest": losses.hinge_hardest, "hinge_semihard": losses.hinge_semihard}
        return hinge[settings.name](similarities, same_image, margin=settings.margin)

    @property
    def temperature(self) -> float | Tensor:
        """Of info_nce."""
        return torch.exp(-self.log_scale) if self.learns else self.settings.temperature

    @property
    def learns(self) -> bool:
        return hasattr(self, "log_scale")

    def keep_in_bounds(self) -> None:
        """After a step of the optimizer: the temperature stays at 1 / LARGEST_SCALE or above."""
        if self.learns:
            with torch.no_grad():
                self.log_scale.clamp_(max=math.log(LARGEST_SCALE))

    def measures(self) -> dict[str, float]:
        """What it has learnt, for a row of metrics.jsonl."""
        return {"train/temperature": float(torch.exp(-self.log_scale.detach()))} if self.learns else {}

    def _generator(self, step: int) -> torch.Generator:
        state = np.random.SeedSequence([self.seed, self.stage, step]).generate_state(1, np.uint64)
        return torch.Generator().manual_seed(int(state[0] >> np.uint64(1)))


def batch_loss(
    speech: Tensor, image: Tensor, image_ids: Tensor, objective: Objective, ranks: Ranks, step: int = 0
) -> Tensor:
    """This rank's embeddings [B, D] and image ids [B] -> the loss of the batch gathered over all ranks.

    Every rank computes the same value.
    """
    speech = _in_batch_order(gather_with_gradient(_at_least_float32(speech), ranks.world_size), ranks)  # [G, D]
    image = _in_batch_order(gather_with_gradient(_at_least_float32(image), ranks.world_size), ranks)  # [G, D]
    image_ids = _in_batch_order(ranks.gather(image_ids), ranks)  # [G]
    loss: Tensor = objective(speech @ image.T, image_ids[:, None] == image_ids[None, :], step)
    return loss


def _in_batch_order(rows: Tensor, ranks: Ranks) -> Tensor:
    """Rows [G, ...] in rank order -> in the order of the sampler's batch, so that what is drawn of them is the same."""
    return rows.unflatten(0, (ranks.world_size, -1)).transpose(0, 1).flatten(0, 1)


def _at_least_float32(embeddings: Tensor) -> Tensor:
    return embeddings.to(torch.promote_types(embeddings.dtype, torch.float32))
