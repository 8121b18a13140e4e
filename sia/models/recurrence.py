"""A stack of bidirectional GRU layers over padded captions: one recurrence for both directions of a layer on a CPU.

The parameters are those of nn.GRU, and so are states and gradients. On a CPU torch's own GRU makes some sixty calls a
time step, and is slowest in its gradient; this one makes eight. Letters: B captions, S time steps, F features of a
layer's input, H hidden size of a direction, D = 2H. Of the gates, r resets, z keeps and n is new (Cho et al. 2014),
each product with its bias:

    r = sigmoid(x Wr + h Ur)    z = sigmoid(x Wz + h Uz)    n = tanh(x Wn + r * (h Un))    h' = n + z * (h - n)
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

KINDS = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")


def states_of(gru: nn.GRU, steps: Tensor, num_steps: Tensor, depth: int) -> Tensor:
    """The states over time of the first `depth` layers of a bidirectional GRU, as a packed sequence gives them.

    Steps [B, S, F], S those of the longest, and their valid numbers [B] on the CPU -> [B, S, D]; behind a caption's
    valid steps are zeros, which pass no gradient on. In float32 at least, whatever autocast says: bf16 states end
    elsewhere, and autocast would run a GPU's in float16. Where it says bf16, a CPU takes it for the products over all
    time steps, and for nothing that a state goes through.
    """
    kind = steps.device.type
    bf16 = torch.is_autocast_enabled(kind) and torch.get_autocast_dtype(kind) == torch.bfloat16
    with torch.autocast(kind, enabled=False):
        steps = steps.to(torch.promote_types(steps.dtype, torch.float32))
        if steps.is_cuda and depth:
            return packed(gru, steps, num_steps, depth)
        return turned(gru, steps, num_steps, depth, bf16)


def packed(gru: nn.GRU, steps: Tensor, num_steps: Tensor, depth: int) -> Tensor:
    """By torch's own layers: cuDNN on a GPU. Whether padded batches are faster there has not been measured."""
    # Sorted here: torch would wait for the device to sort, and again to restore the order.
    num_steps, order = num_steps.sort(descending=True)
    order, back = sent(torch.stack([order, order.argsort()]), steps.device)
    sequence = pack_padded_sequence(steps.index_select(0, order), num_steps, batch_first=True)
    start = steps.new_zeros(2 * depth, len(steps), gru.hidden_size)
    weights = [weight for layer in range(depth) for suffix in _suffixes(layer) for weight in _weights(gru, suffix)]
    states, _ = torch.gru(sequence.data, sequence.batch_sizes, start, weights, True, depth, 0.0, gru.training, True)
    return pad_packed_sequence(PackedSequence(states, *sequence[1:]), batch_first=True)[0].index_select(0, back)


def turned(gru: nn.GRU, steps: Tensor, num_steps: Tensor, depth: int, bf16: bool = False) -> Tensor:
    """By `_Layer`: both directions go forward, the second over captions turned round, so that padding comes last."""
    turn = sent(_turn(num_steps, len(steps), steps.shape[1]), steps.device)
    states = steps.transpose(0, 1)  # [S, B, F]
    for layer in range(depth):
        both = zip(*(_weights(gru, suffix) for suffix in _suffixes(layer)), strict=True)
        states = _Layer.apply(states, turn, bf16, *(torch.stack(pair) for pair in both))  # [S, B, D]
    behind = torch.arange(len(states))[:, None] >= num_steps  # [S, B]
    return states.masked_fill(sent(behind[..., None], states.device), 0.0).transpose(0, 1)


def sent(values: Tensor, device: torch.device) -> Tensor:
    """Values of the CPU on a device, which is not waited for: a GPU reads pinned memory by itself."""
    return values if device.type == "cpu" else values.pin_memory().to(device, non_blocking=True)


def _suffixes(layer: int) -> tuple[str, str]:
    return f"l{layer}", f"l{layer}_reverse"


def _weights(gru: nn.GRU, suffix: str) -> list[Tensor]:
    return [getattr(gru, f"{kind}_{suffix}") for kind in KINDS]


def _turn(num_steps: Tensor, batch: int, length: int) -> Tensor:
    """[B] -> [S * B], the places in rows [S * B, ...] that turn each caption's valid part round: its own inverse."""
    step = torch.arange(length)[:, None]  # [S, 1]
    from_step = torch.where(step < num_steps, num_steps - 1 - step, step)  # [S, B]
    return (from_step * batch + torch.arange(batch)).flatten()


class _Layer(torch.autograd.Function):
    """Both directions of one layer. The gradient is written out; products over all time steps are one product each."""

    @staticmethod
    def forward(
        ctx: Any, steps: Tensor, turn: Tensor, bf16: bool, w_ih: Tensor, w_hh: Tensor, b_ih: Tensor, b_hh: Tensor
    ) -> Tensor:
        """[S, B, F], the turn [S * B], weights [2, 3H, F] and [2, 3H, H], biases [2, 3H] of each -> [S, B, D]."""
        ctx.bf16 = bf16
        length, batch, hidden = *steps.shape[:2], w_hh.shape[2]
        inputs = _both((steps, steps), turn)  # [2, S * B, F]
        bias = torch.cat([b_ih[:, : 2 * hidden] + b_hh[:, : 2 * hidden], b_ih[:, 2 * hidden :]], dim=1)
        gates = _product(inputs, w_ih.mT, bf16).add_(bias[:, None]).view(2, length, batch, 3 * hidden)
        # Beside r and z goes what the state gives to n, beside its bias; what the input gives is what n begins with.
        new = gates[..., 2 * hidden :].clone()
        gates[..., 2 * hidden :] = b_hh[:, None, None, 2 * hidden :]
        states = steps.new_empty(2, length + 1, batch, hidden)
        states[:, 0] = 0
        state, *following = states.unbind(1)
        by_row = w_hh.mT.contiguous()  # [2, H, 3H], which a CPU multiplies by in two thirds of the time
        for gate, n, after in zip(gates.unbind(1), new.unbind(1), following, strict=True):
            gate.baddbmm_(state, by_row)
            gate[..., : 2 * hidden].sigmoid_()
            r, z, by_state = gate.split(hidden, dim=-1)
            n.addcmul_(r, by_state).tanh_()
            state = torch.lerp(n, state, z, out=after)
        # Not the inputs: turned round they are twice the steps, which the layer before has made anyway.
        ctx.save_for_backward(steps, turn, w_ih, w_hh, gates, new, states)
        first, second = states[:, 1:].flatten(1, 2)  # [S * B, H]
        return torch.cat([first, second.index_select(0, turn)], dim=1).view(length, batch, 2 * hidden)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        steps, turn, w_ih, w_hh, gates, new, states = ctx.saved_tensors
        length, batch, hidden = *gradient.shape[:2], w_hh.shape[2]
        r, z, by_state = gates.split(hidden, dim=-1)  # [2, S, B, H]
        # What is added to r, z and n before their sigmoid and tanh has the gradient of the state, times these factors.
        to_n = torch.ops.aten.tanh_backward(1 - z, new)
        to_r = torch.ops.aten.sigmoid_backward(to_n * by_state, r)
        to_z = torch.ops.aten.sigmoid_backward(states[:, :-1] - new, z)
        pre = torch.cat([to_r, to_z, to_n * r], dim=-1)  # [2, S, B, 3H]
        later = _both(gradient.split(hidden, dim=-1), turn).view(2, length, batch, hidden)
        backwards = [reversed(part.unbind(1)) for part in (later, pre, pre.unflatten(-1, (3, hidden)), z)]
        carried = torch.zeros_like(later[:, 0])
        for total, by_gates, factors, keep in zip(*backwards, strict=True):
            total += carried
            factors *= total[:, :, None]
            carried = (total * keep).baddbmm_(by_gates, w_hh)
        flat = pre.view(2, length * batch, 3 * hidden)
        by_w_hh = _product(flat.mT, states[:, :-1].flatten(1, 2), ctx.bf16)
        by_b_hh = flat.sum(dim=1)
        pre[..., 2 * hidden :] = to_n.mul_(later)
        by_w_ih = _product(flat.mT, _both((steps, steps), turn), ctx.bf16)  # [2, 3H, F]
        by_b_ih = flat.sum(dim=1)
        first, second = _product(flat, w_ih, ctx.bf16)
        by_steps = first.add_(second.index_select(0, turn)).view(length, batch, -1)
        return by_steps, None, None, by_w_ih, by_w_hh, by_b_ih, by_b_hh


def _product(left: Tensor, right: Tensor, bf16: bool) -> Tensor:
    """[2, N, K] and [2, K, M] -> [2, N, M]; in bf16 a quarter of the time on CPUs that multiply such matrices."""
    return (left.bfloat16() @ right.bfloat16()).to(left.dtype) if bf16 else left @ right


def _both(rows: Sequence[Tensor], turn: Tensor) -> Tensor:
    """[S, B, F] of the first direction, and of the second, which is turned -> [2, S * B, F]."""
    first, second = (part.reshape(turn.numel(), -1) for part in rows)
    both = first.new_empty(2, *first.shape)
    both[0] = first
    torch.index_select(second, 0, turn, out=both[1])
    return both
