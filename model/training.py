"""The training loop: AdamW, warm-up and cosine decay, gradient clipping, early stopping, resumption after a kill.

A batch is cut into shards of a fixed number, and each shard has random numbers of its own, which follow from the seed,
the step and the shard. Processes share the shards out. So one process or several take the same steps up to rounding,
and a run that goes on from its state ends in the weights of one that was never stopped: bit for bit on the CPU.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from model.data_parallel import Ranks
from model.errors import ModelError, TrainingError
from model.training_plan import StepReport, Task, TrainingReport, TrainingSettings, make_optimizer, rate_at
from model.training_state import STATE_FILE, TrainingState, parse_state, write_state

_AVERAGE_WARMUP = 10  # steps in which the moving average follows faster


class Trainer:
    """Runs a task to its end, from the start or from the state in a folder.

    Args:
        task: what is trained; the weights stay in its module, at the end those of the best validation.
        settings: how.
        folder: where the state is kept; None keeps none.
        run: what is trained on what and how, as one text; a state of another run is refused.
        ranks: which process this is.
        on_step, on_epoch: called in the first process, `on_epoch` with the epoch, the step and the metrics.
    """

    def __init__(
        self,
        task: Task,
        settings: TrainingSettings,
        *,
        folder: Path | None = None,
        run: str = "",
        ranks: Ranks | None = None,
        on_step: Callable[[StepReport], None] = lambda report: None,
        on_epoch: Callable[[int, int, dict[str, float]], None] = lambda epoch, step, metrics: None,
    ) -> None:
        if task.num_items < 1:
            raise TrainingError("there is nothing to train on: no item is left")
        self._task, self._settings, self._folder, self._run = task, settings, folder, run
        self._ranks = ranks or Ranks.current()
        self._batch_size = min(settings.batch_size, task.num_items)
        if self._ranks.size > min(settings.num_shards, self._batch_size):
            raise ModelError(
                f"num_shards and the batch size must be at least the number of processes, {self._ranks.size}, got "
                f"{settings.num_shards!r} and {self._batch_size!r}: use fewer workers"
            )
        self.on_step, self.on_epoch = on_step, on_epoch
        self._named = {name: weight for name, weight in task.module.named_parameters() if weight.requires_grad}
        self._weights = list(self._named.values())
        self._device = self._weights[0].device
        self._optimizer = make_optimizer(task.groups(), settings)
        self.steps_per_epoch = task.num_items // self._batch_size
        self.num_steps = self.steps_per_epoch * settings.num_epochs
        self._state = TrainingState(run=run)
        self._restored = False

    def fit(self) -> TrainingReport:
        """Train.

        Raises:
            TrainingError: a loss or a gradient is no finite number; or the state is damaged or of another run.
        """
        devices = [self._device] if self._device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices):
            return self._fit()

    def _fit(self) -> TrainingReport:
        self.restore()
        self._ranks.copy_from_first(self._weights)
        state, settings = self._state, self._settings
        if settings.average_decay and not state.average:
            state.average = _copy(self._named)
        first_step, started_s = state.step, time.monotonic()
        written_s, stopped = started_s, self._patience_is_out()
        while state.step < self.num_steps and not stopped:
            losses, norm = self._step(state.step)
            state.step += 1
            items_per_s = (state.step - first_step) * self._batch_size / (time.monotonic() - started_s)
            if self._ranks.rank == 0:
                self.on_step(self._report(losses, norm, items_per_s))
            if state.step % self.steps_per_epoch == 0:
                self._validate()
                stopped = self._patience_is_out()
            if self._folder is not None and time.monotonic() - written_s >= settings.state_every_s:
                self._write_state(self._folder)
                written_s = time.monotonic()
        self._take(state.best_weights or state.average)
        return TrainingReport(
            state.step, math.ceil(state.step / self.steps_per_epoch), state.best_metric, state.history, stopped
        )

    def _step(self, step: int) -> tuple[dict[str, float], float]:
        """One step; returns the losses, and the norm of the gradient."""
        task, settings = self._task, self._settings
        rate = self._rate(step)
        for group in self._optimizer.param_groups:
            group["lr"] = group["initial_lr"] * rate
        task.module.train()
        items = self._items(step)
        with torch.autocast(self._device.type, torch.bfloat16, enabled=self._uses_bfloat16):
            outputs = self._outputs(step, items)
            losses = task.losses(outputs, items)
            total = sum(
                (task.objective_weights.get(name, 1.0) * loss for name, loss in losses.items()),
                torch.zeros((), device=self._device),
            )
        values = {name: float(loss.detach()) for name, loss in losses.items()}
        self._require_finite(values, step, outputs, items)
        self._optimizer.zero_grad()
        total.backward()
        self._ranks.average_gradients(self._weights)
        norm = float(nn.utils.clip_grad_norm_(self._weights, settings.clip_norm))
        self._require_finite({"norm of the gradient": norm}, step)
        self._optimizer.step()
        self._update_average(step)
        return values, norm

    def _rate(self, step: int) -> float:
        return rate_at(step, max(1, round(self._settings.warmup_fraction * self.num_steps)), self.num_steps)

    def _items(self, step: int) -> Tensor:
        """The batch of a step: shuffled anew each epoch."""
        epoch, number = divmod(step, self.steps_per_epoch)
        order = torch.randperm(self._task.num_items, generator=_generator(self._settings.seed, 0, epoch))
        return order[number * self._batch_size : (number + 1) * self._batch_size]

    def _outputs(self, step: int, items: Tensor) -> tuple[Tensor, ...]:
        """Outputs for the whole batch, joined from the shards of all processes."""
        shards = items.tensor_split(min(self._settings.num_shards, len(items)))
        parts = []
        for number in self._ranks.own(len(shards)):
            torch.manual_seed(_seed(self._settings.seed, 1, step, number))
            parts.append(self._task.outputs(shards[number]))
        return tuple(self._ranks.gather(torch.cat(tensors)) for tensors in zip(*parts, strict=True))

    def _require_finite(
        self, values: Mapping[str, float], step: int, outputs: tuple[Tensor, ...] = (), items: Tensor | None = None
    ) -> None:
        for name, value in values.items():
            if not math.isfinite(value):
                place = f"at step {step + 1} (epoch {step // self.steps_per_epoch + 1})"
                raise TrainingError(
                    f"the loss {name!r} must be a finite number, got {value!r} {place}{self._culprit(outputs, items)}: "
                    f"lower the learning rate (now {self._settings.learning_rate:g}), or look at the data"
                )

    def _culprit(self, outputs: tuple[Tensor, ...], items: Tensor | None) -> str:
        """The first item of the batch whose outputs are no numbers, if there is one."""
        for output in outputs:
            if items is not None and len(output) == len(items):
                broken = ~output.detach().flatten(1).isfinite().all(dim=1).cpu()
                if broken.any():
                    return f"; the first broken item is {self._task.describe(int(items[broken][0]))}"
        return ""

    @property
    def _uses_bfloat16(self) -> bool:
        return self._settings.bfloat16 and self._device.type == "cuda"

    def _update_average(self, step: int) -> None:
        if average := self._state.average:
            decay = min(self._settings.average_decay, (step + 1) / (step + _AVERAGE_WARMUP))
            for name, weight in self._named.items():
                average[name].lerp_(weight.detach(), 1 - decay)

    def _validate(self) -> None:
        """At the end of an epoch: metrics of the average, or of the weights; the best weights are remembered."""
        state, task = self._state, self._task
        if task.metric is None:
            return
        with self._averaged():
            metrics: dict[str, float] = {}
            if self._ranks.rank == 0:
                task.module.eval()
                with torch.no_grad():
                    metrics = task.validate()
            value = self._ranks.from_first(metrics.get(task.metric, math.nan), self._device)
            if math.isnan(value):
                pass  # nothing could be measured on these items: the last weights are as good as any
            elif state.best_metric is None or value > state.best_metric:
                state.best_metric, state.stale_epochs, state.best_weights = value, 0, _copy(self._named)
            else:
                state.stale_epochs += 1
        state.history.append(metrics)
        if self._ranks.rank == 0:
            self.on_epoch(state.step // self.steps_per_epoch, state.step, metrics)

    @contextmanager
    def _averaged(self) -> Iterator[None]:
        """Within the block, the weights are their moving average, if there is one."""
        if not self._state.average:
            yield
            return
        own = _copy(self._named)
        self._take(self._state.average)
        try:
            yield
        finally:
            self._take(own)

    def _patience_is_out(self) -> bool:
        return 0 < self._settings.patience <= self._state.stale_epochs

    def _take(self, weights: Mapping[str, Tensor]) -> None:
        with torch.no_grad():
            for name, value in weights.items():
                self._named[name].copy_(value)

    def _report(self, losses: dict[str, float], norm: float, items_per_s: float) -> StepReport:
        step = self._state.step
        rate = self._settings.learning_rate * self._rate(step - 1)
        epoch = math.ceil(step / self.steps_per_epoch)
        return StepReport(step, self.num_steps, epoch, losses, rate, norm, items_per_s)

    def _write_state(self, folder: Path) -> None:
        if self._ranks.rank == 0:
            self._state.weights = {name: weight.detach() for name, weight in self._named.items()}
            self._state.optimizer = self._optimizer.state_dict()
            write_state(self._state, folder)

    def restore(self) -> int:
        """Takes up the state in the folder, if there is one; `fit` does so itself. Returns the steps already taken.

        Raises:
            TrainingError: the state is damaged or of another run.
        """
        if self._folder is not None and not self._restored:
            self._restored = True
            self._restore(self._folder / STATE_FILE)
        return self._state.step

    def _restore(self, path: Path) -> None:
        data = path.read_bytes() if self._ranks.rank == 0 and path.exists() else b""
        data = self._ranks.bytes_from_first(data, self._device)
        if not data:
            return
        state = parse_state(data, self._run, path)
        if set(state.weights) != set(self._named):
            raise TrainingError(f"the training state {str(path)!r} has other weights than this model: use --no-resume")
        self._take(state.weights)
        self._optimizer.load_state_dict(state.optimizer)
        state.weights, state.optimizer = {}, {}
        for weights in (state.average, state.best_weights):
            weights.update({name: value.to(self._device) for name, value in weights.items()})
        self._state = state


def _seed(*numbers: int) -> int:
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> 1)


def _generator(*numbers: int) -> torch.Generator:
    return torch.Generator().manual_seed(_seed(*numbers))


def _copy(named: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: weight.detach().clone() for name, weight in named.items()}
