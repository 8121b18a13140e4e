"""One recording or image, as a person has it, to what an encoder reads."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
from PIL import Image
from torch import Tensor

from sia.data.images import centre_view, pixels, read_image, resize_short_side, upright_rgb
from sia.data.mfcc import FEATURES, UnusableRate, mfcc, read_speech
from sia.errors import UserError
from sia.models.parameter_counts import CONV_KERNEL

Speech = str | Path | bytes | np.ndarray | Tensor
Picture = str | Path | bytes | Image.Image


def speech_frames(speech: Speech, sample_rate: int, features: dict[str, Any]) -> Tensor:
    """A recording -> its MFCC frames [T, 40], not yet standardised.

    speech: path or bytes of a wav, flac or ogg file, or a waveform [samples] of floats at `sample_rate` Hz.
    Raises UserError where it is unreadable or too short, or where `features` are none that are computed here.
    """
    refuse_other_features(features)
    name = str(speech) if isinstance(speech, str | Path) else "the recording"
    samples, rate = _samples(speech, sample_rate)
    try:
        frames = mfcc(samples, rate)
    except UnusableRate as error:
        raise UserError(f"{name}: {error}") from None
    except ValueError as error:
        raise UserError(f"{name}: {error}; give a longer recording") from None
    return checked_frames(frames, FEATURES["coefficients"], name)


def checked_frames(frames: np.ndarray | Tensor, width: int, name: str = "the frames") -> Tensor:
    """Frames [T, F] of float32. Raises UserError for another shape, too few of them, or values that are no numbers."""
    found = torch.as_tensor(frames, dtype=torch.float32)
    if found.ndim != 2 or found.shape[1] != width:
        raise UserError(f"{name}: shape {list(found.shape)}; this pair reads frames [T, {width}]")
    if len(found) < CONV_KERNEL:
        raise UserError(f"{name}: {len(found)} frames; give at least {CONV_KERNEL}, a longer recording")
    if not found.isfinite().all():
        raise UserError(f"{name}: holds values that are no numbers; mend it")
    return found


def other_features(features: dict[str, Any]) -> dict[str, Any]:
    """What of a pair's features differs from those that are computed here; nothing where it embeds recordings."""
    return {key: features[key] for key in FEATURES if key in features and features[key] != FEATURES[key]}


def refuse_other_features(features: dict[str, Any]) -> None:
    """Raises UserError where a pair was trained on frames that somebody else computed, or with other settings."""
    for key, value in other_features(features).items():
        raise UserError(
            f"this pair was trained on frames of {key} {value!r}, sound gives {FEATURES[key]!r} here; "
            "compute the frames as for its corpus and give them to embed_frames"
        )


def image_view(image: Picture, short_side: int, crop_size: int) -> Tensor:
    """An image file's path, its bytes, or a PIL image -> the centre crop [3, H, W] of uint8 that is evaluated.

    A prepared corpus keeps a JPEG as a resized JPEG, so that its pixels differ a little from these; a PNG's are equal.
    Raises UserError where it is unreadable.
    """
    if isinstance(image, Image.Image):
        picture = upright_rgb(image, "the image")
    elif isinstance(image, bytes):
        picture = _decoded(image)
    elif isinstance(image, str | Path):
        picture = read_image(image)
    else:
        raise UserError(f"the image: a {type(image).__name__}; give a file's path, its bytes, or a PIL image")
    return centre_view(pixels(resize_short_side(picture, short_side)), crop_size)


def _decoded(content: bytes) -> Image.Image:
    try:
        return read_image(io.BytesIO(content))
    except UserError:
        # It names the file, and these bytes have no name.
        raise UserError("the image: its bytes are no readable image file; give a PNG or JPEG file") from None


def _samples(speech: Speech, sample_rate: int) -> tuple[np.ndarray, int]:
    if isinstance(speech, str | Path):
        return read_speech(speech)
    if isinstance(speech, bytes):
        return _decoded_speech(speech)
    wave = speech.detach().cpu().numpy() if isinstance(speech, Tensor) else np.asarray(speech)
    if not np.issubdtype(wave.dtype, np.floating):
        raise UserError(f"the recording: samples of {wave.dtype}; give floats from -1 to 1 (int16 divided by 32768)")
    if wave.ndim != 1:
        raise UserError(f"the recording: shape {list(wave.shape)}; give one channel, [samples]")
    return wave, sample_rate


def _decoded_speech(content: bytes) -> tuple[np.ndarray, int]:
    try:
        samples, rate = soundfile.read(io.BytesIO(content), dtype="float32", always_2d=True)
    except soundfile.SoundFileError:
        raise UserError("the recording: its bytes are no readable sound; give a wav, flac or ogg file") from None
    if not len(samples):
        raise UserError("the recording: speech of no samples; give a longer one")
    return samples.mean(axis=1), rate
