"""Which queries tell most of a pair, and what lies nearest to them: of embeddings and labels alone.

Letters: Q queries, C candidates, D features. A query and a candidate of one label belong together.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from sia.recall import BLOCK, TIE

SHOWN = 10


class Candidate(NamedTuple):
    rank: int
    row: int
    similarity: float
    right: bool


class Chosen(NamedTuple):
    """A query with the candidates nearest to it; the first right one is there, however far off.

    margin: by how much the right one is more similar than the best wrong one.
    """

    which: str
    row: int
    rank: int
    margin: float
    nearest: list[Candidate]


class Side(NamedTuple):
    """Queries, or candidates: unit embeddings [N, D] and labels [N]."""

    embeddings: Tensor
    labels: Tensor


def choose(queries: Side, candidates: Side, ranked: Tensor, shown: int = SHOWN) -> list[Chosen]:
    """The best, the median and the worst of queries with these ranks [Q]; of one rank, the larger margin is better."""
    margins = margins_of(queries, candidates).tolist()
    order = sorted(range(len(margins)), key=lambda row: (int(ranked[row]), -margins[row]))
    named = {"worst": order[-1], "median": order[(len(order) - 1) // 2], "best": order[0]}
    which = {row: name for name, row in named.items()}  # of few queries, one may be several of them
    return [
        Chosen(which[row], row, int(ranked[row]), margins[row], nearest(queries, candidates, row, shown))
        for row in sorted(which, key=order.index)
    ]


def margins_of(queries: Side, candidates: Side) -> Tensor:
    """[Q]"""
    margins = []
    for rows, labels in zip(queries.embeddings.split(BLOCK), queries.labels.split(BLOCK), strict=True):
        similarities, right = rows @ candidates.embeddings.T, labels[:, None] == candidates.labels
        of_right, of_wrong = (similarities.masked_fill(~kind, -1.0).amax(dim=1) for kind in (right, ~right))
        margins.append(of_right - of_wrong)
    return torch.cat(margins)


def nearest(queries: Side, candidates: Side, row: int, shown: int) -> list[Candidate]:
    """As recall ranks them: a wrong one that is as similar comes first."""
    similarities = candidates.embeddings.double() @ queries.embeddings[row].double()  # [C]
    right = candidates.labels == queries.labels[row]
    order = torch.where(right, similarities - TIE, similarities).argsort(descending=True)
    ranked = [
        Candidate(rank, place, float(similarities[place]), bool(right[place]))
        for rank, place in enumerate(order.tolist(), start=1)
    ]
    first_right = [one for one in ranked if one.right][:1]
    return ranked[:shown] + [one for one in first_right if one.rank > shown]
