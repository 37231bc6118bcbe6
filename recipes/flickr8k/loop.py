"""The training loop: AdamW, warm-up and cosine decay, gradient clipping, and a moving average of the weights."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

_REPORT_EVERY_S = 30.0


@dataclass(frozen=True, kw_only=True)
class Group:
    """Weights that learn at one rate."""

    weights: list[nn.Parameter]
    learning_rate: float


@dataclass(frozen=True, kw_only=True)
class LoopSettings:
    """How to train.

    Attributes:
        num_epochs: passes over the photographs.
        batch_size: photographs a step; all of them where there are fewer.
        weight_decay: of matrices; vectors and numbers have none.
        warmup_fraction: of the steps, in which the rate rises from 0.
        ema_decay: how much of the moving average stays at each step.
    """

    num_epochs: int
    batch_size: int
    weight_decay: float = 0.05
    warmup_fraction: float = 0.1
    ema_decay: float = 0.99


def fit(groups: Iterable[Group], num_items: int, loss_of: Callable[[Tensor], Tensor], settings: LoopSettings) -> None:
    """Minimise `loss_of(rows)` over shuffled batches of rows, and leave the moving average in the weights."""
    optimizer, weights = _optimizer(groups, settings.weight_decay)
    average = [weight.detach().clone() for weight in weights]
    batch_size = min(settings.batch_size, num_items)
    num_steps = settings.num_epochs * (num_items // batch_size)
    warmup = max(1, round(settings.warmup_fraction * num_steps))
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step, warmup, num_steps))
    started_s = reported_s = time.monotonic()
    for step, rows in enumerate(_batches(num_items, settings.num_epochs, batch_size)):
        loss = loss_of(rows)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        schedule.step()
        decay = min(settings.ema_decay, (step + 1) / (step + 10))
        torch._foreach_lerp_(average, [weight.detach() for weight in weights], 1 - decay)
        if time.monotonic() - reported_s > _REPORT_EVERY_S or step + 1 == num_steps:
            reported_s = time.monotonic()
            print(f"  step {step + 1}/{num_steps}  loss {loss.item():.3f}  {reported_s - started_s:.0f} s", flush=True)
    with torch.no_grad():
        for weight, mean in zip(weights, average, strict=True):
            weight.copy_(mean)


def _rate(step: int, warmup: int, num_steps: int) -> float:
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, num_steps - warmup)))


def _batches(num_items: int, num_epochs: int, batch_size: int) -> Iterable[Tensor]:
    whole = num_items // batch_size * batch_size
    for _ in range(num_epochs):
        yield from torch.randperm(num_items)[:whole].split(batch_size)


def _optimizer(groups: Iterable[Group], weight_decay: float) -> tuple[torch.optim.AdamW, list[nn.Parameter]]:
    options, weights = [], []
    for group in groups:
        for decayed in (True, False):
            chosen = [weight for weight in group.weights if (weight.ndim > 1) == decayed]
            weights += chosen
            options.append({"params": chosen, "lr": group.learning_rate, "weight_decay": weight_decay * decayed})
    return torch.optim.AdamW(options, betas=(0.9, 0.98)), weights
