"""The image encoders of `model.image:`, each with its own settings, its size in closed form, and how it is built.

A new one is a class here: `name` is its key in `model.image.name`, `letter` begins the pair's name, its fields are its
settings. This module loads no torch, so that a login node can tell a pair's size.
"""

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from sia.section import Kind

if TYPE_CHECKING:
    from torch import nn

Positive = Annotated[int, Field(gt=0)]


class Backbone(Kind):
    """Images [B, 3, H, W] to features [B, D], randomly initialised; its last linear layer makes the D features."""

    default: ClassVar[str] = "densenet"
    letter: ClassVar[str]
    recomputable: ClassVar[bool] = False  # whether sia/training/recompute.py knows its layers

    @property
    def title(self) -> str:
        """As a table names it."""
        return type(self).__name__

    def parameters(self, latent_size: int) -> int:
        """How many trainable parameters it has."""
        raise NotImplementedError

    def build(self, latent_size: int) -> "nn.Module":
        raise NotImplementedError


class DenseNet(Backbone):
    """Torchvision's DenseNet; the defaults are DenseNet-264 (paper, section 4.2)."""

    letter: ClassVar[str] = "D"
    recomputable: ClassVar[bool] = True
    bottleneck: ClassVar[int] = 4  # a layer's 1x1 convolution makes so many times growth_rate features
    name: Literal["densenet"] = "densenet"
    blocks: Annotated[list[Positive], Field(min_length=1)] = [6, 12, 64, 48]
    growth_rate: Positive = 32
    initial_features: Positive = 64

    @property
    def title(self) -> str:
        return "DenseNet" if self.blocks == DenseNet().blocks else f"DenseNet{tuple(self.blocks)}"

    def parameters(self, latent_size: int) -> int:
        width, growth = self.initial_features, self.growth_rate
        total = 3 * width * 7 * 7 + 2 * width
        for number, layers in enumerate(self.blocks, start=1):
            for _ in range(layers):
                middle = self.bottleneck * growth
                total += 2 * width + width * middle + 2 * middle + middle * growth * 3 * 3
                width += growth
            if number < len(self.blocks):
                total += 2 * width + width * (width // 2)
                width //= 2
        return total + 2 * width + (width + 1) * latent_size

    def build(self, latent_size: int) -> "nn.Module":
        from torchvision.models import DenseNet as Network

        return Network(self.growth_rate, tuple(self.blocks), self.initial_features, self.bottleneck, 0, latent_size)


class ResNet(Backbone):
    """Torchvision's ResNet of plain residual blocks (He et al. 2016); the defaults are ResNet-18."""

    letter: ClassVar[str] = "R"
    name: Literal["resnet"] = "resnet"
    blocks: Annotated[list[Positive], Field(min_length=4, max_length=4)] = [2, 2, 2, 2]

    @property
    def title(self) -> str:
        return f"ResNet{tuple(self.blocks)}"

    def parameters(self, latent_size: int) -> int:
        width = 64
        total = 3 * width * 7 * 7 + 2 * width
        for number, layers in enumerate(self.blocks):
            before, width = width, 64 * 2**number
            total += layers * (2 * width * width * 3 * 3 + 4 * width)
            if before != width:
                total += (before - width) * width * 3 * 3 + before * width + 2 * width  # the first block widens
        return total + (width + 1) * latent_size

    def build(self, latent_size: int) -> "nn.Module":
        from torchvision.models.resnet import BasicBlock
        from torchvision.models.resnet import ResNet as Network

        return Network(BasicBlock, self.blocks, num_classes=latent_size)
