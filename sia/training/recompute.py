"""Less memory for some more arithmetic: a dense block's concatenations and normalised features are made a second time.

They are most of what a DenseNet's gradient needs: each layer concatenates all that the layers before it made. Kept are
the features that each layer adds, and those of its first convolution. Convolutions between blocks alone run twice.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from torchvision.models.densenet import _DenseLayer, _Transition


def recompute(model: nn.Module) -> None:
    """Make the model's dense layers, and what lies between its blocks, do so while they train; names of weights stay.

    Torchvision's own way, `memory_efficient`, counts each batch twice in the running statistics.
    """
    for module in model.modules():
        if type(module) in RECOMPUTED:
            module.__class__ = RECOMPUTED[type(module)]


class Layer(_DenseLayer):
    def forward(self, inputs: Tensor | list[Tensor]) -> Tensor:
        features = [inputs] if isinstance(inputs, Tensor) else inputs
        middle = _made_again(lambda *parts: self.bn_function(list(parts)), self.norm1, *features)
        return _made_again(lambda values: self.conv2(self.relu2(self.norm2(values))), self.norm2, middle)


class Transition(_Transition):
    def forward(self, values: Tensor) -> Tensor:
        return _made_again(super().forward, self.norm, values)


RECOMPUTED: dict[type[nn.Module], type[nn.Module]] = {_DenseLayer: Layer, _Transition: Transition}


def _made_again(make: Callable[..., Tensor], norm: nn.Module, *inputs: Tensor) -> Tensor:
    """What `make` makes of the inputs; for the gradient it is made again, which `norm` does not count."""
    if not torch.is_grad_enabled():
        return make(*inputs)
    made: Tensor = checkpoint(
        make,
        *inputs,
        use_reentrant=False,
        preserve_rng_state=False,
        context_fn=lambda: (nullcontext(), _not_counting(norm)),
    )
    return made


@contextmanager
def _not_counting(norm: nn.Module) -> Iterator[None]:
    """What the layer counts meanwhile is forgotten; the statistics of the batch normalise as before."""
    counted = dict(norm.named_buffers())
    for name, value in counted.items():
        setattr(norm, name, value.clone())
    try:
        yield
    finally:
        for name, value in counted.items():
            setattr(norm, name, value)
