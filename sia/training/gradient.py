"""The gradient of a batch: at once, or in chunks where the batch is larger than memory.

Letters: B captions of this rank's share of the batch.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from sia.data.loader import Batch

Pair = tuple[Tensor, Tensor]  # unit embeddings [B, D] of speech and of images


def backward(embed: Callable[[Batch], Pair], loss_of: Callable[[Tensor, Tensor], Tensor], batch: Batch) -> Tensor:
    """Back-propagate the batch as a whole; its loss, without gradient."""
    loss = loss_of(*embed(batch))
    loss.backward()
    return loss.detach()


def backward_in_chunks(
    embed: Callable[[Batch], Pair],
    loss_of: Callable[[Tensor, Tensor], Tensor],
    batch: Batch,
    chunk_size: int,
    network: nn.Module,
) -> Tensor:
    """Back-propagate the batch in the memory of one chunk; the gradient is that of the whole batch.

    Gradient caching (Gao et al. 2021, section 3.2): the chunks are embedded without gradient; the loss of all
    embeddings gives the gradient of each; then each chunk is embedded again and its embeddings' gradient handed on.
    Batch norm takes its statistics over a chunk, as it takes them over a rank's share otherwise.
    """
    chunks = chunks_of(batch, chunk_size)
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


def chunks_of(batch: Batch, chunk_size: int) -> list[Batch]:
    """The batch in parts of at most `chunk_size` captions, as equal as can be, each as long as its longest caption."""
    count = -(-len(batch.num_frames) // chunk_size)
    parts = zip(*(column.tensor_split(count) for column in batch), strict=True)
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
