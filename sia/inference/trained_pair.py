"""A trained pair that embeds single recordings and images as evaluation embeds those of its corpus, but in float32.

Evaluation computes as the run was trained: in bf16 or TF32 on GPUs that have them, where it differs by their rounding.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sia.data.images import CUSTOMARY_MEAN, CUSTOMARY_STD, normalise
from sia.data.loader import pad
from sia.inference.queries import Picture, Speech, checked_frames, image_view, other_features, speech_frames
from sia.inference.settings import PairSettings
from sia.models.dual_encoder import DualEncoder

BATCH_SIZE = 32


class TrainedPair:
    """Two encoders in evaluation mode with the settings and statistics that they were trained with.

    Embeddings are float32 tensors of unit length on the CPU; their products are similarities.
    """

    def __init__(self, network: DualEncoder, settings: PairSettings, device: torch.device) -> None:
        self.network, self.settings, self.device = network.to(device).eval(), settings, device
        self._mean, self._std = (torch.tensor(value, device=device) for value in _pixel_statistics(settings))

    @property
    def latent_size(self) -> int:
        return self.settings.model.latent_size

    @property
    def frame_features(self) -> int:
        """Numbers a speech frame."""
        return int(self.settings.features["coefficients"])

    @property
    def embeds_recordings(self) -> bool:
        """Whether its frames are MFCCs as they are computed here; else it embeds frames alone."""
        return not other_features(self.settings.features)

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
        return self.embed_frames_batch([checked_frames(frames, self.frame_features)])[0]

    def frames(self, speech: Speech, sample_rate: int = 16_000) -> Tensor:
        """A recording's frames [T, F], not yet standardised; raises as `embed_speech` does."""
        return speech_frames(speech, sample_rate, self.settings.features)

    def view(self, image: Picture) -> Tensor:
        """The pixels [3, H, W] of uint8 that the image encoder sees; raises as `embed_image` does."""
        return image_view(image, self.settings.data.short_side, self.settings.data.crop_size)

    def embed_frames_batch(self, frames: Sequence[Tensor]) -> Tensor:
        """Frames [T_n, F] of N recordings, not yet standardised -> unit embeddings [N, D]."""
        # Recordings of similar length together, so that little is padding.
        order = sorted(range(len(frames)), key=lambda place: len(frames[place]))
        embedded = torch.empty(len(frames), self.latent_size)
        embedded[order] = self._embed(self._speech, [self.standardised(frames[place]) for place in order])
        return embedded

    def embed_views(self, views: Sequence[Tensor]) -> Tensor:
        """Views [3, H, W] of uint8 -> unit embeddings [N, D]."""
        return self._embed(self._images, views)

    def standardised(self, frames: Tensor) -> Tensor:
        """Frames [T, F] with the training corpus's mean and deviation taken out, where the run was trained so."""
        if not self.settings.data.standardise_frames:
            return frames
        mean, std = (torch.tensor(self.settings.corpus[key]) for key in ("frame_mean", "frame_std"))
        return (frames - mean) / std

    def _speech(self, frames: Sequence[Tensor]) -> Tensor:
        padded, num_frames = pad(frames)
        return self.network.speech(padded.to(self.device), num_frames)

    def _images(self, views: Sequence[Tensor]) -> Tensor:
        return self.network.image(normalise(torch.stack(list(views)).to(self.device), self._mean, self._std))

    def _embed(self, encode: Callable[[Any], Tensor], inputs: Sequence[Tensor]) -> Tensor:
        starts = range(0, len(inputs), BATCH_SIZE)
        with full_precision():
            parts = [encode(inputs[start : start + BATCH_SIZE]).float().cpu() for start in starts]
        # Tensors made in inference mode cannot be used where gradients are.
        return torch.cat(parts).clone() if parts else torch.empty(0, self.latent_size)


def _pixel_statistics(settings: PairSettings) -> tuple[Sequence[float], Sequence[float]]:
    """Mean and deviation [3], as sia.embedding.pixel_statistics chooses them."""
    if settings.data.normalisation == "corpus":
        return settings.corpus["pixel_mean"], settings.corpus["pixel_std"]
    return CUSTOMARY_MEAN, CUSTOMARY_STD


@contextmanager
def full_precision() -> Iterator[None]:
    """Without gradients, in float32 itself: TF32 would make an embedding depend on the batch beside it."""
    with torch.inference_mode(), torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        yield
