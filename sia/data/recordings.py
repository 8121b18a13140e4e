"""Which recordings are the same take, whatever files they lie in. This module loads no torch."""

from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import soundfile

# Copies of one take that went through the encoder twice correlate by 0.98 and more, two takes by less than 0.65.
SAME_TAKE = 0.9


def shared_recordings(paths: Iterable[Path]) -> set[Path]:
    """The recordings whose take lies in another of `paths` too, and those that cannot be read.

    Equal bytes would miss a take that was encoded twice; takes are compared as waveforms of equal length.
    """
    shared: set[Path] = set()
    of_length: dict[int, list[Path]] = defaultdict(list)
    for path in paths:
        try:
            of_length[soundfile.info(path).frames].append(path)
        except soundfile.LibsndfileError:
            shared.add(path)
    for alike in of_length.values():
        if len(alike) > 1:
            shared |= _same_takes(alike)
    return shared


def _same_takes(paths: list[Path]) -> set[Path]:
    """The paths whose waveform correlates with another one's; all are equally long."""
    waves = {path: wave for path in paths if (wave := _normalised(path)) is not None}
    stacked = np.stack([*waves.values()]) if waves else np.zeros((0, 1))  # [N, samples]
    correlation = np.abs(stacked @ stacked.T) - np.eye(len(waves))  # [N, N]
    same = {path for path, row in zip(waves, correlation, strict=True) if row.max() > SAME_TAKE}
    return same | (set(paths) - set(waves))


def _normalised(path: Path) -> np.ndarray | None:
    """The channels' mean with mean 0 and norm 1 [samples], or None where it cannot be decoded or is silent."""
    try:
        wave = soundfile.read(path, dtype="float32", always_2d=True)[0].mean(axis=1)
    except soundfile.LibsndfileError:
        return None
    wave = wave - wave.mean() if wave.size else wave
    norm = float(np.linalg.norm(wave))
    return wave / norm if norm > 0 else None
