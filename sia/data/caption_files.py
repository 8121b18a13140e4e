"""A caption's files as a shard stores them, or why training cannot use them."""

import io
from typing import Any

import numpy as np
from PIL import Image

from sia.data import hdf5_path
from sia.data.images import encode, is_jpeg, read_file, read_image, resize_short_side
from sia.data.manifest import Images, SpokenCaption
from sia.data.mfcc import LONGEST_SECONDS, MAX_FRAMES, MIN_FRAMES, TooLong, UnusableRate, mfcc, read_speech
from sia.errors import UserError


class Unusable(UserError):
    """A caption that training cannot use: the reason that the summary counts, and the detail of this one."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason, self.detail = reason, detail


def caption_frames(caption: SpokenCaption, imported: dict[str, Any] | None = None) -> np.ndarray:
    """A caption's frames [T, F]: the MFCCs of its recording, or those of its file, which `imported` describes.

    Raises Unusable where they cannot be had, are too few or too many, of another width, or no numbers.
    """
    path = caption.speech_path
    try:
        frames = _mfcc_frames(path) if imported is None else hdf5_path.read_frames(path)
    except TooLong as error:
        raise Unusable(f"more than {MAX_FRAMES} frames", str(error)) from None
    except Unusable:
        raise
    except UserError as error:
        raise Unusable("unreadable speech", str(error)) from None
    if imported is not None and frames.shape[1] != imported["coefficients"]:
        detail = f"{path}: {frames.shape[1]} numbers a frame, not {imported['coefficients']}"
        raise Unusable("frames of another width", detail)
    if len(frames) < MIN_FRAMES:
        raise Unusable("too short speech", f"{path}: {len(frames)} frames, fewer than {MIN_FRAMES}")
    if len(frames) > MAX_FRAMES:
        raise Unusable(f"more than {MAX_FRAMES} frames", f"{path}: {len(frames)} frames")
    if not np.isfinite(frames).all():
        raise Unusable("unreadable speech", f"{path}: samples or frames that are no numbers")
    return frames


def stored_image(caption: SpokenCaption, images: Images, short_side: int) -> tuple[bytes, Image.Image]:
    """The image file that a shard stores: resized to `short_side` pixels, a JPEG staying one, or as it is.

    And its pixels at `short_side`, either way. Raises Unusable where it is not whole.
    """
    try:
        file = read_file(caption.image_path)
        image = resize_short_side(read_image(io.BytesIO(file), caption.image_path), short_side)
    except UserError as error:
        raise Unusable("unreadable image", str(error)) from None
    return file if images == "original" else encode(image, lossless=not is_jpeg(file)), image


def _mfcc_frames(path: str) -> np.ndarray:
    samples, rate = read_speech(path, LONGEST_SECONDS)
    try:
        return mfcc(samples, rate).numpy()
    except UnusableRate as error:
        raise Unusable("unreadable speech", f"{path}: {error}") from None
    except ValueError as error:
        raise Unusable("too short speech", f"{path}: {error}") from None
