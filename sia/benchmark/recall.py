"""Recall of both directions: ours against the float32 product that nothing can do without, and against sorting."""

import statistics
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor
from torch.nn.functional import normalize

from sia.benchmark.harness import Action, Comparison, in_turn, peaks_mb
from sia.recall import recall_report

FEATURES = 1024
SORTED = 5000  # captions; sorting more takes gigabytes


def compare(count: int, turns: int, features: int = FEATURES) -> Comparison:
    """Seconds, peak memory, how many float32 products ours takes, and the mean rank that each side finds."""
    sides = {"ours": partial(ours, count, features), "float32 product": partial(product, count, features)}
    if count <= SORTED:
        sides["sorting"] = partial(by_sorting, count, features)
    compared = in_turn(f"recall, {count:,} captions and images, D {features}", sides, turns)
    products = 1 / statistics.median(compared.ratios("float32 product"))
    facts = {"ours in float32 products": round(products, 2)}
    facts |= {f"mean rank, {side}": sides[side]()() for side in sides if side != "float32 product"}
    return replace(compared, memory_mb=peaks_mb(sides), facts=facts)


def ours(count: int, features: int) -> Action:
    speech, images = embeddings(count, features)
    return lambda: recall_report(speech, images, torch.arange(count))["speech_to_image/mean_rank"]


def product(count: int, features: int) -> Action:
    speech, images = embeddings(count, features)
    return lambda: speech @ images.T


def by_sorting(count: int, features: int) -> Action:
    speech, images = embeddings(count, features)

    def ranks() -> float:
        similarities = speech @ images.T
        both = [part.argsort(dim=1, descending=True) for part in (similarities, similarities.T)]
        of_images, _ = [(order == torch.arange(count)[:, None]).nonzero()[:, 1] + 1 for order in both]
        return of_images.double().mean().item()

    return ranks


def embeddings(count: int, features: int) -> tuple[Tensor, Tensor]:
    """Unit vectors [N, D] of captions and images, alike enough that about one caption in ten finds its image first."""
    chance = torch.Generator().manual_seed(0)
    images, noise = (normalize(torch.randn(count, features, generator=chance), dim=1) for _ in range(2))
    return normalize(images + 12 * noise, dim=1), images


CASES = {str(count): partial(compare, count) for count in (1000, 5000, 20000)}
