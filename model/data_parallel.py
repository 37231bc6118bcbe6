"""Training on several processes at once: what one of them has to do so that all together take the same step.

Every process holds all weights and computes a part of the batch. Outputs are gathered with their gradients, so that
each computes the loss of the whole batch; gradients are then averaged, in one message. Without a process group
(`torch.distributed`), there is one process and nothing to do.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch import distributed as dist


class Ranks(NamedTuple):
    """Which of how many processes this is: `rank` is 0 to `size - 1`."""

    rank: int = 0
    size: int = 1

    @classmethod
    def current(cls) -> Ranks:
        """As the process group says, or one process where there is none."""
        return cls(dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else cls()

    def own(self, count: int) -> range:
        """Which of `count` shards are this process's: neighbours, in the order of the ranks."""
        return range(self.rank * count // self.size, (self.rank + 1) * count // self.size)

    def gather(self, rows: Tensor) -> Tensor:
        """Rows of all processes, in the order of the ranks: [n, ...] -> [N, ...]; n may differ.

        Gradients flow back into this process's own rows, times the number of processes, as `average_gradients` will
        divide by it. That is right where every process computes the same loss of all rows.
        """
        return rows if self.size == 1 else _Gather.apply(rows, self)

    def average_gradients(self, weights: Sequence[nn.Parameter]) -> None:
        """Replaces every gradient by its mean over the processes; a missing one counts as zero."""
        if self.size == 1:
            return
        parts = [
            weight.new_zeros(weight.numel()) if weight.grad is None else weight.grad.flatten() for weight in weights
        ]
        flat = torch.cat(parts)
        dist.all_reduce(flat)
        means = (flat / self.size).split([weight.numel() for weight in weights])
        for weight, mean in zip(weights, means, strict=True):
            weight.grad = mean.view_as(weight).clone()

    def from_first(self, value: float, device: torch.device) -> float:
        """The number that the first process gives, for all to decide alike."""
        if self.size == 1:
            return value
        shared = torch.tensor([value], dtype=torch.float64, device=device)
        dist.broadcast(shared, 0)
        return float(shared.item())

    def bytes_from_first(self, data: bytes, device: torch.device) -> bytes:
        """What the first process has read from a file that the others may not see."""
        if self.size == 1:
            return data
        length = int(self.from_first(float(len(data)), device))
        shared = torch.zeros(length, dtype=torch.uint8, device=device)
        if self.rank == 0 and length:
            shared.copy_(torch.frombuffer(bytearray(data), dtype=torch.uint8))
        dist.broadcast(shared, 0)
        return shared.cpu().numpy().tobytes()

    def copy_from_first(self, tensors: Sequence[Tensor]) -> None:
        """Overwrites tensors by those of the first process."""
        if self.size > 1:
            for tensor in tensors:
                dist.broadcast(tensor.detach(), 0)


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, ranks: Ranks) -> Tensor:
        counts = [torch.zeros(1, dtype=torch.int64, device=rows.device) for _ in range(ranks.size)]
        dist.all_gather(counts, torch.tensor([len(rows)], device=rows.device))
        lengths = [int(count.item()) for count in counts]
        padded = rows.new_zeros(max(lengths), *rows.shape[1:])  # the processes must send equally much
        padded[: len(rows)] = rows
        received = [torch.empty_like(padded) for _ in range(ranks.size)]
        dist.all_gather(received, padded)
        ctx.start, ctx.length, ctx.size = sum(lengths[: ranks.rank]), len(rows), ranks.size
        return torch.cat([part[:length] for part, length in zip(received, lengths, strict=True)])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0][ctx.start : ctx.start + ctx.length] * ctx.size, None
