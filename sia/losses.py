"""Losses: a similarity matrix and a mask of the pairs that share an image -> a scalar.

Every loss takes similarities [B, B] (rows are captions, columns images, the diagonal the B aligned pairs) and
same_image [B, B] of bool, true where caption i's image is image j: the diagonal, and the other captions of that image,
which are no negatives of each other. Every loss counts both directions, captions that search images and images that
search captions, and is the mean over the B anchors of the sum of the two. An anchor without a negative costs nothing.
A similarity that is not a number makes a loss that is none, unless it is one that the loss leaves out.
Each raises ValueError for shapes that do not fit. The names and settings by which a configuration chooses
one are in sia/objectives.py; a new loss may have its formula there, or here.
"""

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy


def hinge(similarities: Tensor, same_image: Tensor, margin: float = 0.2) -> Tensor:
    """The paper's loss (equation 3): each aligned pair against every negative.

    sum over i and over all negatives j of max(0, S[i, j] - S[i, i] + margin) + max(0, S[j, i] - S[i, i] + margin),
    divided by B.
    """
    negatives = _negatives(similarities, same_image)
    to_images = torch.where(negatives, _violations(similarities, margin), 0.0)
    to_captions = torch.where(negatives.T, _violations(similarities.T, margin), 0.0)
    return (to_images.sum() + to_captions.sum()) / len(similarities)


def hinge_hardest(similarities: Tensor, same_image: Tensor, margin: float = 0.2) -> Tensor:
    """The hinge against the most similar negative alone (VSE++, Faghri et al. 2018, equation 6)."""
    negatives = _negatives(similarities, same_image)
    return _hinge_of_hardest(similarities, negatives, margin) + _hinge_of_hardest(similarities.T, negatives.T, margin)


def hinge_semihard(similarities: Tensor, same_image: Tensor, margin: float = 0.2) -> Tensor:
    """The hinge against the most similar negative that is still less similar than the aligned pair.

    An anchor whose negatives are all more similar costs nothing. FaceNet (Schroff et al. 2015); for speech and images
    Harwath, Hsu and Glass 2020 ([10] of the paper).
    """
    negatives = _negatives(similarities, same_image)
    aligned = similarities.diagonal()
    # Not `<`: a similarity that is not a number must not look like a negative that is passed over.
    to_images = _hinge_of_hardest(similarities, negatives & ~(similarities >= aligned[:, None]), margin)
    to_captions = _hinge_of_hardest(similarities.T, negatives.T & ~(aligned[:, None] <= similarities.T), margin)
    return to_images + to_captions


def hinge_sampled(
    similarities: Tensor, same_image: Tensor, margin: float = 0.2, generator: torch.Generator | None = None
) -> Tensor:
    """The hinge against one negative of each anchor, drawn uniformly (DAVEnet, Harwath et al. 2018, [16] of the paper).

    generator: where the draws come from; torch's own by default. Captions draw first, then images.
    """
    negatives = _negatives(similarities, same_image)
    to_images = _hinge_of_hardest(similarities, _one_of_each_row(negatives, generator), margin)
    to_captions = _hinge_of_hardest(similarities.T, _one_of_each_row(negatives.T, generator), margin)
    return to_images + to_captions


def masked_margin_softmax(
    similarities: Tensor, same_image: Tensor, margin: float = 0.001, scale: float | Tensor = 1.0
) -> Tensor:
    """Masked margin softmax (Ilharco, Zhang and Baldridge 2019; [33] of the paper).

    - mean over i of log(e[i] / (e[i] + sum over negatives j of exp(scale * S[i, j]))), and the same over columns, where
    e[i] = exp(scale * (S[i, i] - margin)).

    scale: factor of the similarities. That paper's are products of any size; those of unit vectors stay within
    -1 and 1, and with a scale of 1 the loss hardly falls.
    """
    negatives = _negatives(similarities, same_image)
    aligned = torch.eye(len(similarities), dtype=torch.bool, device=similarities.device)
    logits = (similarities - margin * aligned.to(similarities.dtype)) * scale  # [B, B]
    logits = logits.masked_fill(~(negatives | aligned), float("-inf"))
    right = torch.arange(len(logits), device=logits.device)
    return cross_entropy(logits, right) + cross_entropy(logits.T, right)


def info_nce(similarities: Tensor, same_image: Tensor, temperature: float | Tensor = 0.07) -> Tensor:
    """InfoNCE (van den Oord et al. 2018, equation 4) of both directions with a temperature (CLIP, Radford et al. 2021).

    - mean over i of log(e[i, i] / (e[i, i] + sum over negatives j of e[i, j])), and the same over columns, where
    e[i, j] = exp(S[i, j] / temperature). It is the sum of the directions; CLIP takes half of it.
    """
    return masked_margin_softmax(similarities, same_image, margin=0.0, scale=1 / temperature)


def _violations(similarities: Tensor, margin: float) -> Tensor:
    """By how much each column comes within the margin of the row's aligned one [B, B]."""
    return (similarities - similarities.diagonal()[:, None] + margin).clamp(min=0)


def _hinge_of_hardest(similarities: Tensor, candidates: Tensor, margin: float) -> Tensor:
    """The mean over rows of the largest violation among a row's candidates [B, B] of bool; none is 0."""
    hardest = similarities.masked_fill(~candidates, float("-inf")).amax(dim=1)  # [B]
    return (hardest - similarities.diagonal() + margin).clamp(min=0).mean()


def _one_of_each_row(mask: Tensor, generator: torch.Generator | None) -> Tensor:
    """One of each row's true places, drawn uniformly, alone true: [B, B] -> [B, B]."""
    device = mask.device if generator is None else generator.device
    # A GPU reads pinned memory by itself; any other copy would wait for all that it does.
    draws = torch.rand(mask.shape, generator=generator, device=device, pin_memory=device != mask.device)
    draws = draws.to(mask.device, non_blocking=True).masked_fill(~mask, -1.0)
    chosen = torch.zeros_like(mask).scatter_(1, draws.argmax(dim=1, keepdim=True), True)
    return chosen & mask


def _negatives(similarities: Tensor, same_image: Tensor) -> Tensor:
    """[B, B], true where row and column do not share an image."""
    if similarities.ndim != 2 or similarities.shape[0] != similarities.shape[1]:
        raise ValueError(f"similarities must be [B, B], not {list(similarities.shape)}")
    if same_image.shape != similarities.shape:
        raise ValueError(f"same_image must be {list(similarities.shape)}, not {list(same_image.shape)}")
    return ~same_image.bool()
