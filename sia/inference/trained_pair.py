"""A trained pair that embeds single recordings and images as evaluation embeds those of its corpus, but in float32.

Evaluation computes as the run was trained: in bf16 or TF32 on GPUs that have them, where it differs by their rounding.
"""

import io
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
from PIL import Image
from torch import Tensor

from sia.data.images import (
    CUSTOMARY_MEAN,
    CUSTOMARY_STD,
    batched,
    centre_view,
    normalise,
    pixels,
    read_image,
    resize_short_side,
    upright_rgb,
)
from sia.data.loader import pad
from sia.data.mfcc import FEATURES, UnusableRate, mfcc, read_speech
from sia.errors import UserError
from sia.inference.pair_settings import PairSettings
from sia.models.dual_encoder import DualEncoder
from sia.models.sizes import CONV_KERNEL

BATCH_SIZE = 32
Speech = str | Path | bytes | np.ndarray | Tensor
Picture = str | Path | bytes | Image.Image


class TrainedPair:
    """Two encoders in evaluation mode with the settings and statistics that they were trained with.

    Embeddings are float32 tensors of unit length on the CPU; their products are similarities.
    """

    def __init__(self, network: DualEncoder, settings: PairSettings, device: torch.device) -> None:
        self.network, self.settings, self.device = network.to(device).eval(), settings, device
        own, statistics = settings.data.normalisation == "corpus", settings.corpus
        mean, std = (statistics["pixel_mean"], statistics["pixel_std"]) if own else (CUSTOMARY_MEAN, CUSTOMARY_STD)
        self._mean, self._std = torch.tensor(mean, device=device), torch.tensor(std, device=device)

    @property
    def latent_size(self) -> int:
        return self.settings.model.latent_size

    @property
    def embeds_recordings(self) -> bool:
        """Whether its frames are MFCCs as they are computed here; else it embeds frames alone."""
        return not self._other_features()

    def embed_speech(self, speech: Speech, sample_rate: int = 16_000) -> Tensor:
        """A recording's unit embedding [D].

        speech: path or bytes of a wav, flac or ogg file (its own rate counts), or a waveform [samples] of floats from
        -1 to 1 at `sample_rate` Hz. Raises UserError where it is unreadable or too short, or where the pair was
        trained on other features than MFCC frames; `embed_frames` takes those.
        """
        return self.embed_speeches([speech], sample_rate)[0]

    def embed_speeches(self, speeches: Sequence[Speech], sample_rate: int = 16_000) -> Tensor:
        """Unit embeddings [N, D] of recordings; raises as `embed_speech` does."""
        return self.embed_frames_batch([self.frames(speech, sample_rate) for speech in speeches])

    def embed_image(self, image: Picture) -> Tensor:
        """An image's unit embedding [D]: the path of a file, its bytes, or a PIL image. Raises UserError."""
        return self.embed_images([image])[0]

    def embed_images(self, images: Sequence[Picture]) -> Tensor:
        """Unit embeddings [N, D] of images; raises as `embed_image` does."""
        return self.embed_views([self.view(image) for image in images])

    def embed_frames(self, frames: np.ndarray | Tensor) -> Tensor:
        """The unit embedding [D] of a recording's frames [T, F], as they stand in a prepared corpus."""
        return self.embed_frames_batch([self._checked(frames)])[0]

    def frames(self, speech: Speech, sample_rate: int = 16_000) -> Tensor:
        """A recording's frames [T, F], not yet standardised; raises as `embed_speech` does."""
        for key, value in self._other_features().items():
            raise UserError(
                f"this pair was trained on frames of {key} {value!r}, sound gives {FEATURES[key]!r} here; "
                "compute the frames as for its corpus and give them to embed_frames"
            )
        name = str(speech) if isinstance(speech, str | Path) else "the recording"
        samples, rate = _samples(speech, sample_rate)
        try:
            frames = mfcc(samples, rate)
        except ValueError as error:
            cure = "" if isinstance(error, UnusableRate) else "; give a longer recording"
            raise UserError(f"{name}: {error}{cure}") from None
        return self._checked(frames, name)

    def view(self, image: Picture) -> np.ndarray:
        """The centre crop [H, W, 3] of uint8 that the image encoder sees; raises as `embed_image` does.

        A prepared corpus keeps a JPEG as a resized JPEG, so that its pixels differ a little from these; a PNG's are
        equal.
        """
        data = self.settings.data
        return centre_view(pixels(resize_short_side(_picture(image), data.short_side)), data.crop_size)

    def embed_frames_batch(self, frames: Sequence[Tensor]) -> Tensor:
        """Frames [T_n, F] of N recordings, not yet standardised -> unit embeddings [N, D]."""
        # Recordings of similar length together, so that little is padding.
        order = sorted(range(len(frames)), key=lambda place: len(frames[place]))
        embedded = torch.empty(len(frames), self.latent_size)
        embedded[order] = self._embed(self._speech, [self.standardised(frames[place]) for place in order])
        return embedded

    def attention(self, frames: Tensor) -> Tensor:
        """Frames [T, F] of a recording, not yet standardised -> what each feature takes of each step [S, D]."""
        padded, num_frames = pad([self.standardised(frames)])
        with full_precision():
            weights, _ = self.network.speech.attention_over_time(padded.to(self.device), num_frames)
        return weights[0].float().cpu().clone()

    def embed_views(self, views: Sequence[np.ndarray]) -> Tensor:
        """Views [H, W, 3] of uint8 -> unit embeddings [N, D]."""
        return self._embed(self._images, views)

    def standardised(self, frames: Tensor) -> Tensor:
        """Frames [T, F] with the training corpus's mean and deviation taken out, where the run was trained so."""
        if not self.settings.data.standardise_frames:
            return frames
        mean, std = (torch.tensor(self.settings.corpus[key]) for key in ("frame_mean", "frame_std"))
        return (frames - mean) / std

    def _other_features(self) -> dict[str, Any]:
        """What of its features differs from those that are computed here."""
        own = self.settings.features
        return {key: own[key] for key in FEATURES if key in own and own[key] != FEATURES[key]}

    def _checked(self, frames: np.ndarray | Tensor, name: str = "the frames") -> Tensor:
        """Frames [T, F] of float32. Raises UserError for another shape, too few of them, or what is no number."""
        found, width = torch.as_tensor(frames, dtype=torch.float32), int(self.settings.features["coefficients"])
        if found.ndim != 2 or found.shape[1] != width:
            raise UserError(f"{name}: shape {list(found.shape)}; this pair reads frames [T, {width}]")
        if len(found) < CONV_KERNEL:
            raise UserError(f"{name}: {len(found)} frames; give at least {CONV_KERNEL}, a longer recording")
        if not found.isfinite().all():
            raise UserError(f"{name}: holds values that are no numbers; mend it")
        return found

    def _speech(self, frames: Sequence[Tensor]) -> Tensor:
        padded, num_frames = pad(frames)
        return self.network.speech(padded.to(self.device), num_frames)

    def _images(self, views: Sequence[np.ndarray]) -> Tensor:
        return self.network.image(normalise(batched(views).to(self.device), self._mean, self._std))

    def _embed(self, encode: Callable[[Any], Tensor], inputs: Sequence[Any]) -> Tensor:
        starts = range(0, len(inputs), BATCH_SIZE)
        with full_precision():
            parts = [encode(inputs[start : start + BATCH_SIZE]).float().cpu() for start in starts]
        # Tensors made in inference mode cannot be used where gradients are.
        return torch.cat(parts).clone() if parts else torch.empty(0, self.latent_size)


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


def _picture(image: Picture) -> Image.Image:
    if isinstance(image, Image.Image):
        return upright_rgb(image, "the image")
    if isinstance(image, str | Path):
        return read_image(image)
    if not isinstance(image, bytes):
        raise UserError(f"the image: a {type(image).__name__}; give a file's path, its bytes, or a PIL image")
    try:
        return read_image(io.BytesIO(image))
    except UserError:
        # It names the file, and these bytes have no name.
        raise UserError("the image: its bytes are no readable image file; give a PNG or JPEG file") from None


@contextmanager
def full_precision() -> Iterator[None]:
    """Without gradients, in float32 itself: TF32 would make an embedding depend on the batch beside it."""
    with torch.inference_mode(), torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        yield
