"""What a training run is told: its settings, the task it works on, and what it reports."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from model.errors import ModelError

_BETAS = (0.9, 0.98)


@dataclass(frozen=True, kw_only=True)
class TrainingSettings:
    """How to train.

    Attributes:
        num_epochs: passes over the items.
        batch_size: items a step, of all processes together; what is left over at the end of an epoch is left out.
        learning_rate: the highest; groups of weights may have a multiple of it.
        weight_decay: of matrices; vectors and numbers have none.
        warmup_fraction: of the steps, in which the rate rises from 0; then it falls along half a cosine.
        clip_norm: gradients that are longer are scaled down to this.
        average_decay: how much of the moving average of the weights stays at each step; 0: there is no average.
        patience: stop after so many epochs without a better validation metric; 0: never.
        bfloat16: compute in bfloat16 where that is fast, on a GPU.
        seed: of everything random.
        num_shards: parts of a batch; the most processes that can share it.
        state_every_s: write the state when the last one is so old, seconds.
    """

    num_epochs: int = 10
    batch_size: int = 128
    learning_rate: float = 1e-3
    weight_decay: float = 0.05
    warmup_fraction: float = 0.1
    clip_norm: float = 1.0
    average_decay: float = 0.0
    patience: int = 0
    bfloat16: bool = True
    seed: int = 0
    num_shards: int = 4
    state_every_s: float = 30.0

    def __post_init__(self) -> None:
        for name, least in (("num_epochs", 1), ("batch_size", 1), ("num_shards", 1), ("patience", 0), ("seed", 0)):
            if getattr(self, name) < least:
                raise ModelError(f"{name} must be at least {least}, got {getattr(self, name)!r}")
        for name in ("learning_rate", "clip_norm"):
            if not 0 < getattr(self, name) < math.inf:
                raise ModelError(f"{name} must be a number above 0, got {getattr(self, name)!r}")
        for name in ("warmup_fraction", "average_decay"):
            if not 0 <= getattr(self, name) < 1:
                raise ModelError(f"{name} must be at least 0 and below 1, got {getattr(self, name)!r}")
        if not 0 <= self.weight_decay < math.inf:
            raise ModelError(f"weight_decay must be at least 0, got {self.weight_decay!r}")


class Group(NamedTuple):
    """Weights that learn at one rate.

    Attributes:
        weights: the parameters.
        rate_factor: times `TrainingSettings.learning_rate`.
    """

    weights: list[nn.Parameter]
    rate_factor: float = 1.0


class Task(Protocol):
    """What is trained. Items are numbered 0 to `num_items - 1`.

    Attributes:
        module: what holds the weights; those that require gradients are trained, saved in the state and averaged.
        num_items: items to train on.
        objective_weights: of each loss in the sum that is minimised; those not named count once.
        metric: which entry of `validate` is to grow; None where there is no validation.
    """

    @property
    def module(self) -> nn.Module: ...
    @property
    def num_items(self) -> int: ...
    @property
    def objective_weights(self) -> Mapping[str, float]: ...
    @property
    def metric(self) -> str | None: ...

    def groups(self) -> list[Group]:
        """All weights that require gradients, by their rates."""
        ...

    def outputs(self, items: Tensor) -> tuple[Tensor, ...]:
        """What the model makes of some items, int64 [n]: tensors whose first dimension can be joined with others'."""
        ...

    def losses(self, outputs: tuple[Tensor, ...], items: Tensor) -> dict[str, Tensor]:
        """Scalars, from the joined outputs of a whole batch; deterministic."""
        ...

    def validate(self) -> dict[str, float]:
        """Metrics on items that are kept back, computed in evaluation mode; none where they hold nothing to measure."""
        ...

    def describe(self, item: int) -> str:
        """What an item is called, for an error."""
        ...


class StepReport(NamedTuple):
    """One step. `losses` are unweighted, `gradient_norm` is before clipping, `items_per_s` is the mean of this run."""

    step: int
    num_steps: int
    epoch: int
    losses: dict[str, float]
    learning_rate: float
    gradient_norm: float
    items_per_s: float


class TrainingReport(NamedTuple):
    """How it ended.

    Attributes:
        num_steps: steps taken, those before a resumption included.
        num_epochs: epochs begun.
        best_metric: of the weights that were kept; None without validation.
        history: metrics of each validation.
        stopped_early: whether patience ran out.
    """

    num_steps: int
    num_epochs: int
    best_metric: float | None
    history: list[dict[str, float]]
    stopped_early: bool


def make_optimizer(groups: list[Group], settings: TrainingSettings) -> torch.optim.AdamW:
    """AdamW (Loshchilov and Hutter, 2019) without decay on vectors and numbers, which are scales and offsets."""
    options: list[dict[str, Any]] = []
    for group in groups:
        for decayed in (True, False):
            weights = [weight for weight in group.weights if (weight.ndim > 1) == decayed]
            if weights:
                rate = settings.learning_rate * group.rate_factor
                decay = settings.weight_decay * decayed
                options.append({"params": weights, "lr": rate, "initial_lr": rate, "weight_decay": decay})
    return torch.optim.AdamW(options, betas=_BETAS)


def describe_run(settings: TrainingSettings, facts: Mapping[str, object]) -> str:
    """One text that names all that decides the course of a run; how often its state is written does not."""
    course = {name: value for name, value in asdict(settings).items() if name != "state_every_s"}
    return "\n".join(f"{name} = {value}" for name, value in {**facts, **course}.items())


def rate_at(step: int, warmup: int, num_steps: int) -> float:
    """Share of the highest learning rate at a step: a rising line, then half a cosine that ends at 0."""
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, num_steps - warmup)))
