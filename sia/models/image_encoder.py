"""The image branch: pixels to a unit vector (paper, section 4.2)."""

from collections.abc import Sequence

from torch import Tensor, nn
from torchvision.models import DenseNet

from sia.models.unit import unit


class ImageEncoder(nn.Module):
    """DenseNet, randomly initialised, whose last linear layer makes the D features; the defaults are DenseNet-264."""

    def __init__(
        self,
        latent_size: int,
        blocks: Sequence[int] = (6, 12, 64, 48),
        growth_rate: int = 32,
        initial_features: int = 64,
    ) -> None:
        super().__init__()
        self.latent_size = latent_size
        self.densenet = DenseNet(growth_rate, tuple(blocks), initial_features, num_classes=latent_size)

    def forward(self, images: Tensor) -> Tensor:
        """Images [B, 3, H, W] -> unit embeddings [B, D]."""
        features = self.densenet(images)
        return unit(features)
