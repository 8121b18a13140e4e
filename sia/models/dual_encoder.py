"""The pair of encoders that share one latent space (paper, figure 1)."""

from torch import Tensor, nn

from sia.config import Model
from sia.models.image_encoder import ImageEncoder
from sia.models.speech_encoder import SpeechEncoder


class DualEncoder(nn.Module):
    """A speech encoder and an image encoder with the same latent size D."""

    def __init__(self, speech: SpeechEncoder, image: ImageEncoder) -> None:
        super().__init__()
        self.speech = speech
        self.image = image

    @classmethod
    def from_config(cls, model: Model) -> "DualEncoder":
        return cls(
            SpeechEncoder(model.latent_size, model.gru_layers, model.frame_features),
            ImageEncoder(model.latent_size, model.image),
        )

    def forward(self, frames: Tensor, num_frames: Tensor, images: Tensor) -> tuple[Tensor, Tensor]:
        """Frames [B, T, 40], valid frames [B], images [B, 3, H, W] -> unit embeddings [B, D] of speech and images."""
        return self.speech(frames, num_frames), self.image(images)
