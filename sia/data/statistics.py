"""Sums over the training split, of which a corpus's mean and deviation are made."""

import numpy as np


class Statistics:
    """Sums of rows of a width; those of shards add up to those of the corpus."""

    def __init__(self, width: int) -> None:
        self.sums = np.zeros((3, width))  # of ones, of values, of squares

    def add(self, rows: np.ndarray) -> None:
        """Rows [N, width]."""
        rows = rows.astype(np.float64)
        self.sums += [np.full(rows.shape[1], len(rows)), rows.sum(axis=0), (rows**2).sum(axis=0)]


def mean_and_deviation(sums: np.ndarray) -> tuple[list[float], list[float]]:
    """Statistics' sums [3, width] -> mean [width] and deviation [width]."""
    count = np.maximum(sums[0], 1)
    mean = sums[1] / count
    return mean.tolist(), np.sqrt(np.maximum(sums[2] / count - mean**2, 1e-12)).tolist()
