"""Recall at K, median rank and mean rank of both directions, from embeddings and the image of each caption.

The rank of a right answer is one plus the number of wrong answers at least as similar: a tie counts against the query.
Letters: N captions, M images, Q images with a caption, D features of an embedding.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

CUTOFFS = (1, 5, 10)
# Captions, and images, of one block of similarities: memory grows with N + M, never with N * M.
BLOCK = 512
# Features that are summed up in one product of float32: fewer make a narrower band, and slower products.
SUMMED = 128
# Near-ties that are settled at once, and what share of a block is too large to settle one by one.
SETTLED, MANY = 4096, 1 / 64
# Equal embeddings may differ by some rounding after a matrix product; in float64 that is far below this.
TIE = 1e-10
RESAMPLES = 1000
RESAMPLED_AT_ONCE = 2**22
SEED = 0
BOUNDS = {"low": 0.025, "high": 0.975}


class Ranks(NamedTuple):
    """The ranks, from 1, of all queries of one pool of candidates."""

    of_images: Tensor  # [N] each caption's own image among all images
    of_captions: Tensor  # [Q] each image's best caption among all captions; images without a caption are no queries
    image_of_caption: Tensor  # [N] the place of each caption's image among those Q


def recall_report(
    speech: Tensor,
    images: Tensor,
    image_of_speech: Tensor,
    pool: int | None = None,
    folds: int = 1,
    intervals: bool = False,
) -> dict[str, float]:
    """Unit embeddings of speech [N, D] and images [M, D], and the image index of each caption [N] -> named measures.

    Keys: `speech_to_image/R_at_1`, `R_at_5`, `R_at_10`, `median_rank`, `mean_rank`, and the same under
    `image_to_speech/`, where an image query is right when any of its captions is found (its best rank) and images with
    no caption are no queries. With `pool`, candidates are the first `pool` images with their captions, and measures are
    averaged over `folds` such pools, one after the other. With `intervals`, each measure also has `_low` and `_high`,
    the bounds of its 95 % interval (`_intervals`).
    Raises ValueError for shapes that do not fit, an index outside the images, or fewer pools than `folds`.
    """
    owner = torch.as_tensor(image_of_speech, device=speech.device).long()
    _check(speech, images, owner)
    ranked = [_ranks_of_pool(speech, images, owner, one) for one in image_pools(owner, len(images), pool, folds)]
    once = [_measures(one, torch.ones(1, len(one.of_captions), dtype=torch.float64)) for one in ranked]
    report = {name: value.item() for name, value in _mean_over(once).items()}
    return {**report, **_intervals(ranked)} if intervals else report


def image_pools(image_of_speech: Tensor, num_images: int, pool: int | None = None, folds: int = 1) -> list[range]:
    """The first `folds` groups of `pool` images, in their order, that hold an image with a caption; None: one of all.

    A pool larger than the images there are is all of them, and the last group may be smaller.
    Raises ValueError for numbers below 1, folds without a pool, or fewer such groups than folds.
    """
    if folds < 1 or (pool is not None and pool < 1):
        raise ValueError(f"pool {pool}, folds {folds}: both must be 1 or more")
    if pool is None and folds > 1:
        raise ValueError(f"folds {folds}: give the number of images of a pool too")
    size = min(pool or num_images, num_images)
    starts = (image_of_speech.unique() // size).unique() * size
    if len(starts) < folds:
        fits = f"a pool of at most {num_images // folds} images, or fewer folds"
        raise ValueError(f"pool {pool}, folds {folds}: {num_images} images make {len(starts)} such pools; give {fits}")
    return [range(start, min(start + size, num_images)) for start in starts[:folds].tolist()]


def ranks(speech: Tensor, images: Tensor, image_of_speech: Tensor) -> Ranks:
    """The ranks of both directions, of speech [N, D], images [M, D] and the image index of each caption [N].

    Other captions of the same image are right answers too, so they do not worsen the rank of the best one. All ranks
    are those of products in float64: those of float32 decide where their rounding cannot matter (`_rounding`).
    """
    own, best = _right_similarities(speech, images, image_of_speech)
    rounding = _rounding(speech, images)
    of_images, of_captions = torch.ones_like(image_of_speech), image_of_speech.new_ones(len(images))
    for rows in _blocks(len(speech)):
        for columns in _blocks(len(images)):
            right = image_of_speech[rows] - columns.start
            block = _Block(speech[rows], images[columns], right, own[rows] - TIE, best[columns] - TIE)
            counts = (None if rounding is None else block.quick_counts(rounding)) or block.counts()
            of_images[rows] += counts[0]
            of_captions[columns] += counts[1]
    queries, image_of_caption = image_of_speech.unique(return_inverse=True)
    return Ranks(of_images, of_captions[queries], image_of_caption)


class _Block(NamedTuple):
    """Captions and images of which wrong answers are counted: pairs at least as similar as asked for."""

    speech: Tensor  # [n, D]
    images: Tensor  # [m, D]
    right: Tensor  # [n], each caption's image; in the block where it is 0 to m - 1
    of_captions: Tensor  # [n] of float64, the similarity that counts for a caption's query
    of_images: Tensor  # [m], and for an image's

    def counts(self) -> tuple[Tensor, Tensor]:
        """How many images count against each caption [n], and captions against each image [m]; in float64."""
        lowest = torch.finfo(torch.float64).min
        similarities = self.speech.double() @ self.images.double().T  # [n, m]
        # A similarity that is not a number must not look like a wrong answer that lost.
        similarities.nan_to_num_(nan=float("inf"), posinf=float("inf"), neginf=lowest)
        self._leave_right_ones_out(similarities)
        return _at_least(similarities, self.of_captions), _at_least(similarities.T, self.of_images)

    def quick_counts(self, rounding: float) -> tuple[Tensor, Tensor] | None:
        """The same by products of float32, wrong by no more than `rounding`; None where too many of them decide."""
        similarities = _products(self.speech, self.images)
        self._leave_right_ones_out(similarities)
        caption = _near(similarities, self.of_captions, rounding)
        image = _near(similarities.T, self.of_images, rounding)
        if len(caption.query) + len(image.query) > MANY * similarities.numel():
            return None
        by_captions = _settled(caption, self.speech, self.images, self.of_captions)
        return by_captions, _settled(image, self.images, self.speech, self.of_images)

    def _leave_right_ones_out(self, similarities: Tensor) -> None:
        inside = ((self.right >= 0) & (self.right < len(self.images))).nonzero()[:, 0]
        similarities[inside, self.right[inside]] = float("-inf")


class _Near(NamedTuple):
    counts: Tensor  # [n] of candidates that count against each query, whatever the rounding
    query: Tensor  # [k], of pairs that may count
    candidate: Tensor  # [k]


def _rounding(speech: Tensor, images: Tensor) -> float | None:
    """How much a product of float32 (`_products`) may be wrong; None where only float64 is right.

    With u = 2^-24, n products of one sum are wrong by no more than n u / (1 - n u) times the sum of their sizes, in
    whatever order they are summed (Higham 2002, section 3.1). That sum is at most the product of the two lengths. Here
    n is that of the features summed at once and of such sums; a hundredth is for all other rounding.
    """
    if {speech.dtype, images.dtype} != {torch.float32} or torch.get_float32_matmul_precision() != "highest":
        return None
    lengths = [torch.linalg.vector_norm(part, dim=1).max().item() for part in (speech, images)]
    largest = lengths[0] * lengths[1]
    summed = min(SUMMED, speech.shape[1]) + -(-speech.shape[1] // SUMMED)
    # Neither holds for a length that is not a number.
    return 1.01 * summed * 2**-24 * largest if largest < 1e30 and summed < 2**16 else None


def _products(speech: Tensor, images: Tensor) -> Tensor:
    """[n, D], [m, D] of float32 -> [n, m], few features at a time."""
    parts = zip(speech.split(SUMMED, dim=1), images.split(SUMMED, dim=1), strict=True)
    first, second = next(parts)
    total, product = first @ second.T, speech.new_empty(len(speech), len(images))
    for first, second in parts:
        total += torch.mm(first, second.T, out=product)
    return total


def _near(similarities: Tensor, asked: Tensor, rounding: float) -> _Near:
    """Of similarities [n, m], wrong by no more than `rounding`, and what is asked for [n] of float64."""
    low, high = _float32(asked - rounding, up=False), _float32(asked + rounding, up=True)
    counts = _at_least(similarities, high)
    query = (counts != _at_least(similarities, low)).nonzero()[:, 0]
    unsure = similarities[query]
    place, candidate = ((unsure >= low[query, None]) & (unsure < high[query, None])).nonzero(as_tuple=True)
    return _Near(counts, query[place], candidate)


def _float32(values: Tensor, up: bool) -> Tensor:
    """The nearest of float32 that are larger, or smaller."""
    return values.float().nextafter(torch.tensor(float("inf" if up else "-inf"), device=values.device))


def _settled(near: _Near, queries: Tensor, candidates: Tensor, asked: Tensor) -> Tensor:
    """The counts [n], each near pair's similarity taken in float64."""
    for query, candidate in zip(near.query.split(SETTLED), near.candidate.split(SETTLED), strict=True):
        similarity = (queries[query].double() * candidates[candidate].double()).sum(dim=1)
        near.counts.index_add_(0, query, (similarity >= asked[query]).long())
    return near.counts


def _at_least(similarities: Tensor, asked: Tensor) -> Tensor:
    """How many of [n, m] are as large in each row as asked for [n]; ones are summed as the numbers that they are."""
    ones = torch.ge(similarities, asked[:, None], out=torch.empty_like(similarities))
    return ones.sum(dim=1).long()


def _ranks_of_pool(speech: Tensor, images: Tensor, image_of_speech: Tensor, pool: range) -> Ranks:
    """The ranks among the images of the pool and their captions alone, ready for measuring."""
    inside = (image_of_speech >= pool.start) & (image_of_speech < pool.stop)
    found = ranks(speech[inside], images[pool.start : pool.stop], image_of_speech[inside] - pool.start)
    return Ranks(*(one.cpu() for one in found))


def _right_similarities(speech: Tensor, images: Tensor, image_of_speech: Tensor) -> tuple[Tensor, Tensor]:
    """The similarity of each caption to its own image [N], and of each image to the nearest of its captions [M]."""
    rows = [(speech[one].double() * images[image_of_speech[one]].double()).sum(1) for one in _blocks(len(speech))]
    # A similarity that is not a number is the worst there can be.
    lowest = torch.finfo(torch.float64).min
    own = torch.cat(rows).nan_to_num(nan=lowest, posinf=float("inf"), neginf=lowest)
    best = own.new_full((len(images),), lowest)
    return own, best.scatter_reduce_(0, image_of_speech, own, "amax")


def _blocks(count: int) -> Iterator[slice]:
    return (slice(start, min(start + BLOCK, count)) for start in range(0, count, BLOCK))


def _measures(ranked: Ranks, weights: Tensor) -> dict[str, Tensor]:
    """Measures [W] under W weightings [W, Q] of the images: an image's weight is that of its captions too."""
    directions = {
        "speech_to_image": (ranked.of_images, ranked.image_of_caption),
        "image_to_speech": (ranked.of_captions, torch.arange(len(ranked.of_captions))),
    }
    return {
        f"{direction}/{name}": value
        for direction, (found, image) in directions.items()
        for name, value in _weighted(found, image, weights).items()
    }


def _weighted(found: Tensor, image: Tensor, weights: Tensor) -> dict[str, Tensor]:
    """Ranks [n] and the image of each [n], measured under weights [W, Q]."""

    def total(values: Tensor) -> Tensor:
        of_image = torch.zeros(weights.shape[1], dtype=torch.float64).index_add_(0, image, values.double())
        return weights @ of_image  # [W]

    queries = total(torch.ones_like(found))
    report = {f"R_at_{k}": total(found <= k) / queries for k in CUTOFFS}
    return {**report, "median_rank": _median(found, weights[:, image]), "mean_rank": total(found) / queries}


def _median(found: Tensor, weights: Tensor) -> Tensor:
    """The median of ranks [n] that occur so many times [W, n]; the mean of the middle two of an even number."""
    ordered, order = found.sort()
    ends = weights[:, order].cumsum(dim=1)  # the place, from 1, where each rank's repeats end
    count = ends[:, -1:]
    middle = torch.cat([(count + 1) // 2, count // 2 + 1], dim=1)  # places from 1
    return ordered[torch.searchsorted(ends, middle)].double().mean(dim=1)


def _intervals(ranked: list[Ranks]) -> dict[str, float]:
    """95 % percentile intervals of 1,000 bootstrap resamples, equal for equal ranks (Efron and Tibshirani 1993).

    Images are drawn with all their captions, because captions of one image are not independent. The candidates stay as
    they are, so an interval tells how far the choice of queries moves a measure, not how far another training would.
    """
    generator = torch.Generator().manual_seed(SEED)
    resampled = _mean_over([_resampled(one, generator) for one in ranked])
    shares = torch.tensor(list(BOUNDS.values()), dtype=torch.float64)
    return {
        f"{name}_{side}": bound.item()
        for name, values in resampled.items()
        for side, bound in zip(BOUNDS, values.quantile(shares), strict=True)
    }


def _resampled(ranked: Ranks, generator: torch.Generator) -> dict[str, Tensor]:
    """Measures [RESAMPLES] of resampled images of one pool."""
    at_once = max(1, RESAMPLED_AT_ONCE // len(ranked.of_images))
    counts = [min(at_once, RESAMPLES - start) for start in range(0, RESAMPLES, at_once)]
    chunks = [_measures(ranked, _drawn(count, len(ranked.of_captions), generator)) for count in counts]
    return {name: torch.cat([chunk[name] for chunk in chunks]) for name in chunks[0]}


def _drawn(count: int, num_images: int, generator: torch.Generator) -> Tensor:
    """How often each image comes up in `count` draws with replacement of so many images: [count, Q]."""
    drawn = torch.randint(num_images, (count, num_images), generator=generator)
    nothing = torch.zeros(count, num_images, dtype=torch.float64)
    return nothing.scatter_add_(1, drawn, torch.ones_like(nothing))


def _mean_over(folds: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    return {name: torch.stack([fold[name] for fold in folds]).mean(dim=0) for name in folds[0]}


def _check(speech: Tensor, images: Tensor, image_of_speech: Tensor) -> None:
    if speech.ndim != 2 or images.ndim != 2 or speech.shape[1] != images.shape[1]:
        raise ValueError(f"speech and images must be [N, D] and [M, D], not {list(speech.shape)}, {list(images.shape)}")
    if not len(speech):
        raise ValueError("there is no caption to rank; the split is empty")
    if image_of_speech.shape != speech.shape[:1]:
        raise ValueError(f"image_of_speech must be [{len(speech)}], not {list(image_of_speech.shape)}")
    if image_of_speech.min() < 0 or image_of_speech.max() >= len(images):
        raise ValueError(f"image_of_speech holds an index outside 0..{len(images) - 1}")
