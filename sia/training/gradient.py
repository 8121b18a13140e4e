"""The gradient of a batch: at once, or in chunks where the batch is larger than memory.

Letters: B captions of this rank's share of the batch.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from sia.data.loader import Batch
from sia.distributed import Ranks

Pair = tuple[Tensor, Tensor]  # unit embeddings [B, D] of speech and of images


def backward(embed: Callable[[Batch], Pair], loss_of: Callable[[Tensor, Tensor], Tensor], batch: Batch) -> Tensor:
    """Back-propagate the batch as a whole; its loss, without gradient."""
    loss = loss_of(*embed(batch))
    loss.backward()
    return loss.detach()


def backward_in_chunks(
    embed: Callable[[Batch], Pair],
    loss_of: Callable[[Tensor, Tensor], Tensor],
    chunks: list[Batch],
    network: nn.Module,
) -> Tensor:
    """Back-propagate a batch, cut by `chunks_of`, in the memory of one chunk; the gradient is that of the whole batch.

    Gradient caching (Gao et al. 2021, section 3.2): the chunks are embedded without gradient; the loss of all
    embeddings gives the gradient of each; then each chunk is embedded again and its embeddings' gradient handed on.
    Batch norm takes its statistics over a chunk: those of all its captions, or of this rank's alone.
    """
    with torch.no_grad(), kept_buffers(network):
        embedded = [embed(chunk) for chunk in chunks]
    speech, image = (torch.cat(parts).requires_grad_() for parts in zip(*embedded, strict=True))
    loss = loss_of(speech, image)
    loss.backward()
    assert speech.grad is not None and image.grad is not None
    sizes = [len(chunk.num_frames) for chunk in chunks]
    gradients = list(zip(speech.grad.split(sizes), image.grad.split(sizes), strict=True))
    for number, (chunk, gradient) in enumerate(zip(chunks, gradients, strict=True), start=1):
        with _without_reduction(network) if number < len(chunks) else nullcontext():
            torch.autograd.backward(embed(chunk), gradient)
    return loss.detach()


def chunks_of(batch: Batch, chunk_size: int, ranks: Ranks) -> list[Batch]:
    """This rank's share of each chunk, as long as its longest caption; chunk_size: at most so many over all ranks.

    Chunks are as equal as can be. Which captions make one does not depend on the number of ranks, since a rank holds
    every world_size-th caption of the batch; it holds some of each chunk where there are no more ranks than chunk_size.
    """
    in_all = len(batch.num_frames) * ranks.world_size
    chunks = torch.arange(in_all).tensor_split(-(-in_all // chunk_size))  # places in the batch of all ranks
    shares = [int((chunk % ranks.world_size == ranks.rank).sum()) for chunk in chunks]
    parts = zip(*(column.split(shares) for column in batch), strict=True)
    return [Batch(frames[:, : int(lengths.max())], lengths, *rest) for frames, lengths, *rest in parts]


@contextmanager
def kept_buffers(network: nn.Module) -> Iterator[None]:
    """The running statistics of batch norm are in the end what they were: each chunk passes twice, but counts once."""
    before = [buffer.clone() for buffer in network.buffers()]
    yield
    for buffer, value in zip(network.buffers(), before, strict=True):
        buffer.copy_(value)


def _without_reduction(network: nn.Module) -> AbstractContextManager[None]:
    """DistributedDataParallel sums gradients over the ranks with the last chunk alone."""
    return network.no_sync() if isinstance(network, DistributedDataParallel) else nullcontext()
