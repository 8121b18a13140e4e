"""Batch norm over the batch of all ranks: with it, what is learnt does not depend on how many ranks there are.

Letters: B images of this rank, C channels, H and W places of an image, N values of a channel over all ranks.
"""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from sia.distributed import Ranks


def synchronise(model: nn.Module, ranks: Ranks) -> None:
    """Make each BatchNorm2d of the model take its statistics over all ranks; weights and their names stay.

    PyTorch's own layer for GPUs waits for the device in each of its calls, to see whether a rank's batch is empty.
    """
    if ranks.device.type == "cuda":
        nn.SyncBatchNorm.convert_sync_batchnorm(model)
        return
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.__class__ = SynchronisedBatchNorm


class SynchronisedBatchNorm(nn.BatchNorm2d):
    """Batch norm on CPUs over all ranks, which must call it in the same order; torch.nn.SyncBatchNorm needs GPUs."""

    def forward(self, values: Tensor) -> Tensor:
        """[B, C, H, W] -> the same shape; B may differ from rank to rank."""
        if not self.training:
            return super().forward(values)
        mean, variance, count = _statistics(values)
        self._track(mean, variance * (count / (count - 1)))
        normalised: Tensor = _Normalise.apply(values, self.weight, self.bias, mean, variance, count, self.eps)
        return normalised

    @torch.no_grad()
    def _track(self, mean: Tensor, variance: Tensor) -> None:
        assert self.running_mean is not None and self.running_var is not None and self.num_batches_tracked is not None
        assert self.momentum is not None
        self.num_batches_tracked += 1
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), self.momentum)
        self.running_var.lerp_(variance.to(self.running_var.dtype), self.momentum)


@torch.no_grad()
def _statistics(values: Tensor) -> tuple[Tensor, Tensor, int]:
    """Mean [C] and biased variance [C] over all ranks, and N."""
    values = values.to(torch.promote_types(values.dtype, torch.float32))
    mean, variance = torch.batch_norm_update_stats(values, None, None, 0.0)
    own = torch.cat([mean.new_tensor([values.numel() / len(mean)]), mean, variance])
    parts = [torch.empty_like(own) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, own)
    counts, means, variances = torch.stack(parts).double().split([1, len(mean), len(mean)], dim=1)  # [ranks, 1 or C]
    shares = counts / counts.sum()
    joint = (shares * means).sum(dim=0)
    # A rank's sum of squares about the joint mean is that about its own, and its distance from the joint one.
    spread = (shares * (variances + (means - joint).square())).sum(dim=0)
    return joint.to(mean.dtype), spread.to(mean.dtype), round(counts.sum().item())


class _Normalise(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, values: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, variance: Tensor, count: int, eps: float
    ) -> Tensor:
        ctx.save_for_backward(values, weight, mean, variance)
        ctx.count, ctx.eps = count, eps
        return nn.functional.batch_norm(values, mean, variance, weight, bias, training=False, eps=eps)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """With v normalised to n: dv = weight / deviation * (dn - sum(dn) / N - n * sum(n * dn) / N)."""
        values, weight, mean, variance = ctx.saved_tensors
        # As if the statistics were fixed: the first term, and the sums over this rank.
        fixed, by_weight, by_bias = torch.ops.aten.native_batch_norm_backward(
            gradients[0], values, weight, mean, variance, None, None, False, ctx.eps, [True, True, True]
        )
        sums = torch.cat([by_weight, by_bias])
        dist.all_reduce(sums)
        scale = weight * (variance + ctx.eps).rsqrt() / ctx.count
        by_spread, by_mean = (scale * part for part in sums.chunk(2))
        moved = nn.functional.batch_norm(values, mean, variance, by_spread, by_mean, training=False, eps=ctx.eps)
        # The weight's and the bias's stay those of this rank: DistributedDataParallel takes the mean over the ranks.
        return fixed.sub_(moved), by_weight, by_bias, None, None, None, None
