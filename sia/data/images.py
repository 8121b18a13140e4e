"""Image files to pixels: decode, resize, crop, flip, normalise (paper, section 5.3)."""

import io
import random
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from PIL import Image, ImageChops, ImageOps, UnidentifiedImageError
from torch import Tensor

from sia.data import hdf5_path
from sia.errors import UserError, one_line

# The customary mean and deviation of natural RGB images, in shares of full intensity.
CUSTOMARY_MEAN = [0.485, 0.456, 0.406]
CUSTOMARY_STD = [0.229, 0.224, 0.225]
JPEG_QUALITY = 95
# A longer image loses its ends: scaled up, a line of 10000 x 2 pixels would fill a gigabyte.
MAX_ASPECT = 10

_ORIENTATION = 0x0112  # EXIF's tag
# Of a PNG: its signature, what comes before and after its width and height; a chunk's size and name.
_HEADER, _CHUNK = struct.Struct(">16s2I5s4x"), struct.Struct(">I4s")
_RGB_PNG = (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", b"\x08\x02\0\0\0")  # of eight bits, not interlaced

# What Pillow raises for a file that is no image, or not a whole one.
_UNREADABLE = (OSError, ValueError, SyntaxError, EOFError, IndexError, Image.DecompressionBombError)


def read_file(path: str) -> bytes:
    """The bytes of an image file, or of one in an HDF5 file (`FILE.h5::DATASET[ROW]`). Raises UserError."""
    if hdf5_path.parse(path) and not Path(path).exists():
        return hdf5_path.read_bytes(path)
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise _unreadable(path, error.strerror or error) from None


def read_image(source: Path | str | BinaryIO, name: str = "") -> Image.Image:
    """An RGB image from a file, upright by its EXIF orientation, transparency laid over white.

    Raises UserError that names the file (or `name`) where it is missing, no image, or not a whole one.
    """
    try:
        image = Image.open(source)
    except UnidentifiedImageError:
        # Pillow names a stream by its place in memory.
        raise _unreadable(name or source, "it is none that can be read") from None
    except _UNREADABLE as error:
        raise _unreadable(name or source, error) from None
    with image:
        return upright_rgb(image, name or str(source))


def upright_rgb(image: Image.Image, name: str) -> Image.Image:
    """An opened image as RGB, upright by its EXIF orientation. Raises UserError that names it where it is not whole."""
    try:
        if image.mode == "RGB" and "transparency" not in image.info and image.getexif().get(_ORIENTATION, 1) == 1:
            image.load()  # it is that already: a copy of a photograph takes long
            return image
        return _rgb(ImageOps.exif_transpose(_straight_cmyk(image)))
    except _UNREADABLE as error:
        raise _unreadable(name, error) from None


def _unreadable(name: object, problem: object) -> UserError:
    return UserError(f"{name}: unreadable image ({one_line(str(problem))}); mend or remove it")


def is_jpeg(file: bytes) -> bool:
    """Whether the bytes of an image file are those of a JPEG."""
    return file.startswith(b"\xff\xd8\xff")


def _straight_cmyk(image: Image.Image) -> Image.Image:
    # Pillow takes every CMYK JPEG for one of Adobe's, whose inks are inverted; without Adobe's marker they are not.
    straight = image.format == "JPEG" and image.mode == "CMYK" and "adobe" not in image.info
    return ImageChops.invert(image) if straight else image


def _rgb(image: Image.Image) -> Image.Image:
    """Grey, 16-bit, palette, CMYK or transparent pixels as RGB."""
    if image.mode.startswith(("I", "F")):
        image = _eight_bits(image)
    if image.has_transparency_data:
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image.convert("RGBA")).convert("RGB")
    return image.convert("RGB")


def _eight_bits(image: Image.Image) -> Image.Image:
    """A grey image of 16-bit values, or of floats (to 1 or to 65535), as one of bytes; its transparent value stays so.

    Pillow's own conversion clips such values to 255 instead of scaling them.
    """
    values = np.asarray(image).astype(np.float64)
    white = 1.0 if image.mode.startswith("F") and np.nanmax(values, initial=0.0) <= 1 else 65535.0
    scaled = Image.fromarray((np.nan_to_num(values) / white * 255).clip(0, 255).astype(np.uint8))
    clear = image.info.get("transparency")
    if isinstance(clear, int):
        scaled.putalpha(Image.fromarray(np.where(values == clear, 0, 255).astype(np.uint8)))
    return scaled


def resize_short_side(image: Image.Image, side: int) -> Image.Image:
    """The image with its shorter side of `side` pixels, its shape kept.

    Of one that is more than MAX_ASPECT times as long as it is wide, the middle is taken.
    """
    longest = MAX_ASPECT * min(image.size)
    if max(image.size) > longest:
        left, top = (max(0, length - longest) // 2 for length in image.size)
        image = image.crop((left, top, left + min(image.width, longest), top + min(image.height, longest)))
    scale = side / min(image.size)
    width, height = (max(side, round(length * scale)) for length in image.size)
    return image if image.size == (width, height) else image.resize((width, height), Image.Resampling.BICUBIC)


def encode(image: Image.Image, lossless: bool) -> bytes:
    buffer = io.BytesIO()
    if lossless:
        image.save(buffer, "PNG", optimize=False)
    else:
        # Colours at full size: halved, those of sharp edges would be off by a third.
        image.save(buffer, "JPEG", quality=JPEG_QUALITY, subsampling=0)
    return buffer.getvalue()


def decode(file: bytes) -> Image.Image:
    """The pixels of a file that `encode` made, of which nothing else is read. Raises ValueError or OSError."""
    signature, width, height, kind = _HEADER.unpack_from(file)
    if (signature, kind) != _RGB_PNG:
        return Image.open(io.BytesIO(file), formats=("JPEG", "PNG"))
    # Pillow itself looks for the format and sums each chunk, in Python: of a small image, a fifth of the time.
    place, data = _HEADER.size, b""
    while place < len(file):
        size, name = _CHUNK.unpack_from(file, place)
        data += file[place + 8 : place + 8 + size] if name == b"IDAT" else b""
        place += size + 12
    return Image.frombytes("RGB", (width, height), data, "zip", "RGB")


def pixels(image: Image.Image) -> np.ndarray:
    """[H, W, 3] of uint8."""
    return np.asarray(image)


def random_view(array: np.ndarray, size: int, flip_probability: float, key: str) -> np.ndarray:
    """A random crop, flipped or not: [H, W, 3] -> [size, size, 3].

    The choice depends on `key` alone (seed, epoch and utterance), never on the worker or rank that makes it.
    """
    chance = random.Random(key)
    height, width = array.shape[:2]
    top, left = chance.randrange(height - size + 1), chance.randrange(width - size + 1)
    view = array[top : top + size, left : left + size]
    return _flipped(view) if chance.random() < flip_probability else view


def centre_view(array: np.ndarray, size: int) -> np.ndarray:
    """The centre crop for evaluation: [H, W, 3] -> [size, size, 3]."""
    height, width = array.shape[:2]
    top, left = (height - size) // 2, (width - size) // 2
    return array[top : top + size, left : left + size]


def batched(views: Sequence[np.ndarray]) -> Tensor:
    """Views [H, W, 3] -> a batch [B, 3, H, W], channels last in memory as they were."""
    return torch.from_numpy(np.stack(views)).permute(0, 3, 1, 2)


def normalise(images: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """[B, 3, H, W] of uint8 -> float with the corpus's mean and deviation [3] taken out."""
    return (images.to(mean.dtype) / 255 - mean[:, None, None]) / std[:, None, None]


def _flipped(view: np.ndarray) -> np.ndarray:
    flipped = np.empty_like(view)
    for colour in range(3):  # all at once, numpy copies three bytes at a time: three times as slow
        flipped[..., colour] = view[:, ::-1, colour]
    return flipped
