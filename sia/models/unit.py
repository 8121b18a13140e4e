"""The last step of both branches."""

import torch
from torch import Tensor
from torch.nn.functional import normalize


def unit(features: Tensor) -> Tensor:
    """Features [B, D] at unit length; in float32 at least, because bfloat16 cannot hold a vector of norm 1."""
    return normalize(features.to(torch.promote_types(features.dtype, torch.float32)), dim=-1)
