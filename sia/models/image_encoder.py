"""The image branch: pixels to a unit vector (paper, section 4.2)."""

from torch import Tensor, nn

from sia.models.backbones import Backbone
from sia.models.unit import unit


class ImageEncoder(nn.Module):
    """A backbone, which keeps its kind's name in the names of weights, and the unit length."""

    def __init__(self, latent_size: int, backbone: Backbone) -> None:
        super().__init__()
        self.latent_size, self.kind = latent_size, backbone.name
        self.add_module(self.kind, backbone.build(latent_size))

    def forward(self, images: Tensor) -> Tensor:
        """Images [B, 3, H, W] -> unit embeddings [B, D]."""
        return unit(self.get_submodule(self.kind)(images))
