"""The configured loss over the batch of all ranks, as a module that holds what the loss learns."""

import numpy as np
import torch
from torch import Tensor, nn

from sia.distributed import Ranks, gather_with_gradient
from sia.objectives import Loss


class Objective(nn.Module):
    """A loss of sia/objectives.py and its learned parameters.

    Draws depend on seed, stage and step alone: ranks agree on them, and a resume repeats them.
    """

    def __init__(self, loss: Loss, seed: int = 0, stage: int = 1) -> None:
        super().__init__()
        self.loss, self.seed, self.stage = loss, seed, stage
        for name, learned in loss.learned().items():
            self.register_parameter(name, nn.Parameter(torch.tensor(learned.start)))

    def forward(self, similarities: Tensor, same_image: Tensor, step: int = 0) -> Tensor:
        """Similarities [G, G] and mask [G, G] of the whole batch -> scalar."""
        value = self.loss.value(similarities, same_image, dict(self.named_parameters()), self._generator(step))
        return value * len(similarities) if self.loss.normaliser == "sum" else value

    def keep_in_bounds(self) -> None:
        """After a step of the optimizer."""
        with torch.no_grad():
            for name, learned in self.loss.learned().items():
                self.get_parameter(name).clamp_(learned.low, learned.high)

    def measures(self) -> dict[str, float]:
        """What it has learnt, for a row of metrics.jsonl."""
        learned = {name: parameter.detach() for name, parameter in self.named_parameters()}
        return {f"train/{name}": value for name, value in self.loss.measures(learned).items()}

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
