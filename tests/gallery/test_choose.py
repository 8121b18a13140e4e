"""Queries and candidates by hand, and against recall's own ranks."""

import torch

from sia.gallery.choose import Side, choose, nearest
from sia.recall import ranks


def side(rows: list[list[float]], labels: list[int]) -> Side:
    return Side(torch.tensor(rows), torch.tensor(labels))


def test_the_best_the_median_and_the_worst_by_rank_then_margin() -> None:
    candidates = side([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]], [0, 1, 2])
    queries = side([[0.8, 0.6], [0.0, 1.0], [1.0, 0.0]], [0, 1, 2])
    ranked = torch.tensor([2, 1, 2])
    chosen = choose(queries, candidates, ranked)
    assert [(one.which, one.row, one.rank) for one in chosen] == [("best", 1, 1), ("median", 0, 2), ("worst", 2, 2)]
    torch.testing.assert_close(torch.tensor([one.margin for one in chosen]), torch.tensor([0.2, -0.16, -0.4]))
    assert [(one.rank, one.row, one.right) for one in chosen[1].nearest] == [(1, 2, False), (2, 0, True), (3, 1, False)]


def test_the_right_one_stands_last_where_it_is_not_among_those_shown_and_after_one_that_ties() -> None:
    candidates = side([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]], [0, 1, 2])
    found = nearest(side([[1.0, 0.0]], [2]), candidates, 0, 1)
    assert [(one.rank, one.row, one.right) for one in found] == [(1, 0, False), (3, 2, True)]
    tied = nearest(side([[1.0, 0.0]], [0]), candidates, 0, 2)
    assert [(one.row, one.right) for one in tied] == [(1, False), (0, True)]


def test_the_rank_of_the_right_one_is_recalls() -> None:
    torch.manual_seed(0)
    speech, images, owner = torch.randn(40, 6), torch.randn(15, 6), torch.arange(40) % 15
    ranked = ranks(speech, images, owner)
    recordings, pictures = Side(speech, owner), Side(images, torch.arange(15))
    for row in range(40):
        assert next(one.rank for one in nearest(recordings, pictures, row, 10) if one.right) == ranked.of_images[row]
    for row in range(15):
        assert next(one.rank for one in nearest(pictures, recordings, row, 10) if one.right) == ranked.of_captions[row]
