"""Recordings and images as a page holds them in itself: small files in data URIs, no more of them than it may have."""

import base64
import io

import numpy as np
import soundfile
from PIL import Image

from sia.data.mfcc import SAMPLE_RATE
from sia.errors import UserError

LIMIT_MB = 16  # of a page that shall stay within 20 with what else it shows
LARGEST_SIDE, QUALITY = 256, 85


class Shelf:
    """What a page holds so far. Raises UserError for a medium with which it would hold more than `limit_mb`."""

    def __init__(self, limit_mb: float = LIMIT_MB) -> None:
        self.limit_mb, self.left = limit_mb, int(limit_mb * 1e6)

    def picture(self, image: Image.Image) -> str:
        """A WebP of at most LARGEST_SIDE pixels."""
        small, buffer = image.copy(), io.BytesIO()
        small.thumbnail((LARGEST_SIDE, LARGEST_SIDE))
        small.save(buffer, "WEBP", quality=QUALITY)
        return self._uri("image/webp", buffer.getvalue())

    def sound(self, samples: np.ndarray) -> str:
        """Samples of 16 kHz as an MP3, which every browser plays and which takes a third of a FLAC; as that, where
        libsndfile was built without the one.
        """
        kind, buffer = ("mp3", "mpeg") if "MP3" in soundfile.available_formats() else ("flac", "flac"), io.BytesIO()
        soundfile.write(buffer, samples, SAMPLE_RATE, format=kind[0].upper())
        return self._uri(f"audio/{kind[1]}", buffer.getvalue())

    def _uri(self, kind: str, content: bytes) -> str:
        uri = f"data:{kind};base64,{base64.b64encode(content).decode()}"
        if len(uri) > self.left:
            raise UserError(f"left out: the media of a page may have {self.limit_mb:g} MB in all")
        self.left -= len(uri)
        return uri
