"""A recording drawn from its start to its end: waveform, attention over time, words with their shares of it.

Letters: S steps of the speech branch, D features.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from sia.data.mfcc import SAMPLE_RATE
from sia.data.words import Word
from sia.inference.embedding_file import step_timing
from sia.inference.trained_pair import TrainedPair

WIDTH, HEIGHT = 1000, 100  # of a drawing, in its own units
COLUMNS = 800


class Attention(NamedTuple):
    """What a pair attends to in a recording: the mean over its D features, and when each step is."""

    weights: np.ndarray  # [S], which sum to one
    centres: np.ndarray  # [S] in seconds
    seconds: float  # of the whole recording, by its frames


@dataclass(frozen=True)
class Said:
    """A word: where it lies, in per cent of the recording, and its share of the attention."""

    text: str
    start: float
    width: float
    share: float


@dataclass(frozen=True)
class Strip:
    """Paths in units of WIDTH and HEIGHT. `even`: the height at which no moment would have more than another."""

    seconds: float
    wave: str
    attention: str
    even: float
    words: list[Said]


def attention_of(pair: TrainedPair, frames: Tensor) -> Attention:
    """Of frames [T, F], not yet standardised; where nothing tells how far apart they are, steps are a second long."""
    features: dict[str, Any] = pair.settings.features
    weights = pair.attention(frames).mean(dim=1).numpy()  # [S, D] -> [S]
    timing = step_timing(features) or {"seconds_a_state": 1.0, "first_state_centre_seconds": 0.5}
    a_step, first = timing["seconds_a_state"], timing["first_state_centre_seconds"]
    centres = first + a_step * np.arange(len(weights))
    return Attention(weights, centres, float(centres[-1] + first))


def strip(attention: Attention, samples: np.ndarray, words: Sequence[Word]) -> Strip:
    """Samples of 16 kHz; none where the recording cannot be had."""
    seconds = len(samples) / SAMPLE_RATE or attention.seconds
    highest = max(float(attention.weights.max()), 2 / len(attention.weights))  # even attention is a line half-way up
    heights = HEIGHT * (1 - attention.weights / highest)
    across = WIDTH * attention.centres / seconds
    return Strip(
        seconds,
        _wave(samples),
        _path([(across[0], HEIGHT), *zip(across, heights, strict=True), (across[-1], HEIGHT)]),
        round(HEIGHT * (1 - 1 / len(heights) / highest), 1),
        [_said(word, attention, seconds) for word in words],
    )


def _said(word: Word, attention: Attention, seconds: float) -> Said:
    within = (attention.centres >= word.start) & (attention.centres < word.end)
    start, width = (round(100 * part / seconds, 2) for part in (word.start, word.end - word.start))
    return Said(word.text, start, width, float(attention.weights[within].sum()))


def _wave(samples: np.ndarray) -> str:
    """The lowest and highest sample of each column, the loudest one filling the height."""
    if not len(samples):
        return ""
    columns = np.array_split(samples, min(COLUMNS, len(samples)))
    ends = np.array([(column.max(), column.min()) for column in columns]).T  # [2, columns]
    across = (np.arange(len(columns)) + 0.5) * WIDTH / len(columns)
    above, below = HEIGHT / 2 * (1 - ends / max(float(np.abs(ends).max()), 1e-9))
    return _path([*zip(across, above, strict=True), *zip(across[::-1], below[::-1], strict=True)])


def _path(points: Sequence[tuple[float, float]]) -> str:
    return "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points) + "Z"
