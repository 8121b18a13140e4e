"""A recording and an image as a page shows them."""

from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
import torch

from sia.data.images import read_image
from sia.data.mfcc import LONGEST_SECONDS, UnusableRate, read_speech, resampled
from sia.data.words import words_of
from sia.errors import UserError
from sia.gallery.media import Shelf
from sia.gallery.strip import Attention, Strip, strip


@dataclass(frozen=True)
class Clip:
    """A recording. `source` is empty where it cannot be heard, and `missing` says why."""

    name: str
    text: str
    source: str
    missing: str
    strip: Strip | None


@dataclass(frozen=True)
class Picture:
    """An image, and what somebody said of it. `source` and `missing` as those of a clip."""

    name: str
    text: str
    source: str
    missing: str


def clip(shelf: Shelf, name: str, text: str, find: Callable[[], Path], attention: Attention | None = None) -> Clip:
    """The recording that `find` names, or raises UserError for; drawn over what a pair attends to, if that is given."""
    samples, words, source, missing = np.empty(0, np.float32), [], "", ""
    try:
        path = find()
        read, rate = read_speech(path, LONGEST_SECONDS)
        samples, words = resampled(torch.from_numpy(read), rate).numpy(), words_of(path)
        source = shelf.sound(samples)
    except (UserError, UnusableRate) as error:
        missing = str(error)
    return Clip(name, text, source, missing, attention and strip(attention, samples, words))


def picture(shelf: Shelf, name: str, text: str, find: Callable[[], Path | bytes]) -> Picture:
    """The image that `find` gives, or names, or raises UserError for."""
    try:
        found = find()
        source = shelf.picture(read_image(BytesIO(found) if isinstance(found, bytes) else found, name))
    except UserError as error:
        return Picture(name, text, "", str(error))
    return Picture(name, text, source, "")
