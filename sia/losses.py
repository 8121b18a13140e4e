"""Losses: a similarity matrix and a mask of the pairs that share an image -> a scalar.

Rows are captions, columns images, the diagonal the aligned pairs. To change the objective, change this file.
"""

import torch
from torch import Tensor


def hinge(similarities: Tensor, same_image: Tensor, margin: float = 0.2) -> Tensor:
    """The all-pairs hinge (paper, equation 3): each aligned pair against every non-aligned one, in both directions.

    sum over i and over j not of the same image of
    max(0, S[i, j] - S[i, i] + margin) + max(0, S[j, i] - S[i, i] + margin), divided by B.

    similarities: [B, B] cosine similarities; same_image: [B, B] of bool, true where caption i's image is image j
    (the diagonal, and the other captions of that image): those are no negatives of each other.
    """
    _check(similarities, same_image)
    aligned = similarities.diagonal()  # [B]
    to_images = (similarities - aligned[:, None] + margin).clamp(min=0)
    to_captions = (similarities - aligned[None, :] + margin).clamp(min=0)
    negatives = ~same_image.bool()
    violations = torch.where(negatives, to_images + to_captions, 0.0)
    return violations.sum() / len(similarities)


def _check(similarities: Tensor, same_image: Tensor) -> None:
    if similarities.ndim != 2 or similarities.shape[0] != similarities.shape[1]:
        raise ValueError(f"similarities must be [B, B], not {list(similarities.shape)}")
    if same_image.shape != similarities.shape:
        raise ValueError(f"same_image must be {list(similarities.shape)}, not {list(same_image.shape)}")
