"""Recall at K and median rank of both directions, from embeddings and the image of each caption.

The rank of a right answer is one plus the number of wrong answers at least as similar: a tie counts against the query.
"""

import torch
from torch import Tensor

CUTOFFS = (1, 5, 10)
QUERIES_AT_ONCE = 1024
# Equal embeddings may differ by some rounding after a matrix product; in float64 that is far below this.
TIE = 1e-10


def recall_report(speech: Tensor, images: Tensor, image_of_speech: Tensor) -> dict[str, float]:
    """Unit embeddings of speech [N, D] and images [M, D], and the image index of each caption [N] -> named measures.

    Keys: `speech_to_image/R_at_1`, `R_at_5`, `R_at_10`, `median_rank`, and the same under `image_to_speech/`, where
    an image query is right when any of its captions is found (its best rank) and images with no caption are no queries.
    Raises ValueError for shapes that do not fit or an index outside the images.
    """
    image_of_speech = torch.as_tensor(image_of_speech, device=speech.device).long()
    _check(speech, images, image_of_speech)
    speech_ranks = ranks_of_images(speech, images, image_of_speech)
    image_ranks = ranks_of_captions(speech, images, image_of_speech)
    return {**_measures("speech_to_image", speech_ranks), **_measures("image_to_speech", image_ranks)}


def ranks_of_images(speech: Tensor, images: Tensor, image_of_speech: Tensor) -> Tensor:
    """The rank [N], from 1, of each caption's own image among all M images."""
    ranks = []
    for start in range(0, len(speech), QUERIES_AT_ONCE):
        chunk = slice(start, start + QUERIES_AT_ONCE)
        similarities = speech[chunk].double() @ images.double().T  # [n, M]
        own = similarities.gather(1, image_of_speech[chunk, None])
        ranks.append(_count_at_least(similarities, own))
    return torch.cat(ranks)


def ranks_of_captions(speech: Tensor, images: Tensor, image_of_speech: Tensor) -> Tensor:
    """The best rank, from 1, of each image's captions among all captions; a row for each image that has a caption.

    Other captions of the same image are right answers too, so they do not worsen the rank of the best one.
    """
    ranks = []
    queries = image_of_speech.unique()
    for chunk in queries.split(QUERIES_AT_ONCE):
        similarities = images[chunk].double() @ speech.double().T  # [m, N]
        right = image_of_speech[None, :] == chunk[:, None]
        best = similarities.masked_fill(~right, float("-inf")).amax(dim=1, keepdim=True)
        ranks.append(1 + (_at_least(similarities, best) & ~right).sum(dim=1))
    return torch.cat(ranks)


def _count_at_least(similarities: Tensor, own: Tensor) -> Tensor:
    # The right answer is at least as similar as itself: it makes the count start from 1.
    return _at_least(similarities, own).sum(dim=1)


def _at_least(similarities: Tensor, own: Tensor) -> Tensor:
    # A similarity that is not a number must not look like a wrong answer that lost.
    return ~(similarities < own - TIE)


def _measures(direction: str, ranks: Tensor) -> dict[str, float]:
    report = {f"{direction}/R_at_{k}": (ranks <= k).double().mean().item() for k in CUTOFFS}
    report[f"{direction}/median_rank"] = ranks.double().quantile(0.5).item()
    return report


def _check(speech: Tensor, images: Tensor, image_of_speech: Tensor) -> None:
    if speech.ndim != 2 or images.ndim != 2 or speech.shape[1] != images.shape[1]:
        raise ValueError(f"speech and images must be [N, D] and [M, D], not {list(speech.shape)}, {list(images.shape)}")
    if not len(speech):
        raise ValueError("there is no caption to rank; the split is empty")
    if image_of_speech.shape != speech.shape[:1]:
        raise ValueError(f"image_of_speech must be [{len(speech)}], not {list(image_of_speech.shape)}")
    if image_of_speech.min() < 0 or image_of_speech.max() >= len(images):
        raise ValueError(f"image_of_speech holds an index outside 0..{len(images) - 1}")
