"""What a run shows while it works: scalars for TensorBoard, and one small file that the command line reads."""

from __future__ import annotations

import contextlib
import json
import os
import time
import uuid
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from PIL import Image

from model.training_plan import StepReport

TENSORBOARD, METRICS = "tensorboard", "metrics"
_PROGRESS = "progress.json"
_WRITE_EVERY_S = 0.5


@dataclass(frozen=True, kw_only=True)
class TrainingProgress:
    """How far a run is.

    Attributes:
        step, num_steps: taken and in all.
        epoch: in which it is, from 1.
        losses: of the last step.
        items_per_s: mean of this run.
        metrics: of the last validation.
    """

    step: int
    num_steps: int
    epoch: int
    losses: dict[str, float]
    items_per_s: float
    metrics: dict[str, float] = field(default_factory=dict)


class Monitor:
    """Writes into the run folder; for the first worker only. A context manager.

    Args:
        folder: the run folder.
        first_step: steps that an earlier part of the run has logged; what it logged beyond is dropped.
    """

    def __init__(self, folder: Path, first_step: int = 0) -> None:
        from torch.utils.tensorboard import SummaryWriter  # slow to import

        self._folder = folder
        self._scalars: Any = SummaryWriter(str(folder / TENSORBOARD), purge_step=first_step or None, flush_secs=10)
        self._metrics: dict[str, float] = {}
        self._written_s = 0.0

    def __enter__(self) -> Monitor:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._scalars.close()

    def on_step(self, report: StepReport) -> None:
        values = {f"loss/{name}": value for name, value in report.losses.items()}
        values["learning_rate"], values["gradient_norm"] = report.learning_rate, report.gradient_norm
        values["items_per_s"] = report.items_per_s
        for name, value in values.items():
            self._scalars.add_scalar(name, value, report.step)
        if time.monotonic() - self._written_s >= _WRITE_EVERY_S or report.step == report.num_steps:
            self._written_s = time.monotonic()
            self._write_progress(report)

    def on_epoch(self, epoch: int, step: int, metrics: dict[str, float]) -> None:
        self._metrics = metrics
        for name, value in metrics.items():
            self._scalars.add_scalar(f"validation/{name}", value, step)

    def show_pictures(self, step: int) -> None:
        """Shows the pictures among the metrics."""
        for path in sorted((self._folder / METRICS).glob("*.png")):
            with Image.open(path) as picture:
                self._scalars.add_image(path.stem, np.asarray(picture), step, dataformats="HWC")

    def _write_progress(self, report: StepReport) -> None:
        progress = TrainingProgress(
            step=report.step,
            num_steps=report.num_steps,
            epoch=report.epoch,
            losses=report.losses,
            items_per_s=report.items_per_s,
            metrics=self._metrics,
        )
        write_json(self._folder / _PROGRESS, asdict(progress))


def read_progress(folder: Path) -> TrainingProgress | None:
    """The newest, or None before the first step."""
    with contextlib.suppress(OSError, ValueError):
        return TrainingProgress(**json.loads((folder / _PROGRESS).read_text()))
    return None


def clear_progress(folder: Path) -> None:
    """Forgets what an earlier run showed."""
    (folder / _PROGRESS).unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Writes a small JSON file, whole or not at all."""
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    temporary.write_text(json.dumps(value, indent=1, allow_nan=True), encoding="utf-8")
    os.replace(temporary, path)
