"""A small task with everything that makes resumption and sharing hard: dropout, a contrastive loss, two objectives."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.objectives import contrastive_loss
from model.training import Trainer
from model.training_plan import Group, StepReport, TrainingSettings

SETTINGS = TrainingSettings(
    num_epochs=4, batch_size=10, learning_rate=0.01, average_decay=0.9, state_every_s=0.0, seed=3
)


class ToyTask:
    """Two towers that match noisy copies of the same vectors, and a regression beside them."""

    metric = "gain"
    objective_weights: Mapping[str, float] = {"regression": 0.5}

    def __init__(self, num_items: int = 43) -> None:
        generator = torch.Generator().manual_seed(0)
        self.inputs = torch.randn(num_items, 6, generator=generator)
        self.num_items = num_items
        with torch.random.fork_rng():
            torch.manual_seed(1)
            self.module = nn.ModuleDict(
                {
                    "one": nn.Sequential(nn.Linear(6, 16), nn.GELU(), nn.Dropout(0.3), nn.Linear(16, 5)),
                    "two": nn.Linear(6, 5),
                }
            )
            self.module["two"].register_parameter("log_scale", nn.Parameter(torch.zeros(())))

    def groups(self) -> list[Group]:
        return [Group(list(self.module["one"].parameters())), Group(list(self.module["two"].parameters()), 2.0)]

    def outputs(self, items: Tensor) -> tuple[Tensor, ...]:
        inputs = self.inputs[items]
        noisy = inputs + 0.1 * torch.randn_like(inputs)
        return F.normalize(self.module["one"](noisy), dim=1), F.normalize(self.module["two"](inputs), dim=1)

    def losses(self, outputs: tuple[Tensor, ...], items: Tensor) -> dict[str, Tensor]:
        one, two = outputs
        contrastive = contrastive_loss(one, two, torch.arange(len(one)), self.module["two"].log_scale.exp())
        return {"contrastive": contrastive, "regression": F.mse_loss(one[:, 0], self.inputs[items].sum(dim=1))}

    def validate(self) -> dict[str, float]:
        return {"gain": -float(F.mse_loss(self.module["one"](self.inputs)[:, 0], self.inputs.sum(dim=1)))}

    def describe(self, item: int) -> str:
        return f"toy {item}"


def train(
    folder: Path | None = None, *, pause_s: float = 0.0, task: ToyTask | None = None
) -> tuple[ToyTask, list[float]]:
    """Trains to the end, and returns the contrastive loss of each step."""
    task, losses = task or ToyTask(), []

    def on_step(report: StepReport) -> None:
        losses.append(report.losses["contrastive"])
        time.sleep(pause_s)

    Trainer(task, SETTINGS, folder=folder, run="toy", on_step=on_step).fit()
    return task, losses


def main() -> None:
    """`python training_toy.py FOLDER`: trains slowly. `python training_toy.py STORE RANK SIZE`: in company."""
    torch.set_num_threads(1)
    if len(sys.argv) == 2:
        train(Path(sys.argv[1]), pause_s=0.4)
        return
    store, rank, size = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    torch.distributed.init_process_group("gloo", f"file://{store}", rank=rank, world_size=size)
    train()
    torch.distributed.destroy_process_group()
    # Gloo's threads may still hold the last tensors: where Python takes itself down meanwhile, PyTorch 2.13 aborts, in
    # one of eight runs here (https://github.com/pytorch/pytorch/pull/179291).
    os._exit(0)


if __name__ == "__main__":
    main()
