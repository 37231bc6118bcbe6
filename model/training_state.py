"""The state of a training run on disk: everything that is needed to go on as if nothing had happened."""

from __future__ import annotations

import io
import os
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from model.errors import TrainingError

FORMAT = "videobert-training-1"
STATE_FILE = "state.pt"


@dataclass(kw_only=True)
class TrainingState:
    """Where a run is.

    Random numbers and the order of the data follow from the seed and the step, so that no generator has to be kept.

    Attributes:
        run: what is trained on what and how, as one text; a state is of use only to a run of the same.
        step: steps taken.
        weights: of the trained weights, by name.
        optimizer: its state.
        average: moving average of the weights, if there is one.
        best_weights: those with the best validation metric so far, if there was a validation.
        best_metric: that metric.
        stale_epochs: validations since.
        history: metrics of each validation.
    """

    run: str
    step: int = 0
    weights: dict[str, Tensor] = field(default_factory=dict)
    optimizer: dict[str, Any] = field(default_factory=dict)
    average: dict[str, Tensor] = field(default_factory=dict)
    best_weights: dict[str, Tensor] = field(default_factory=dict)
    best_metric: float | None = None
    stale_epochs: int = 0
    history: list[dict[str, float]] = field(default_factory=list)


def write_state(state: TrainingState, folder: Path) -> None:
    """Write the state, whole or not at all: a kill leaves the one before.

    Raises:
        OSError: it cannot be written.
    """
    fields = {name: getattr(state, name) for name in state.__dataclass_fields__}  # asdict would copy the tensors
    temporary = folder / f".{STATE_FILE}.{uuid.uuid4().hex}.tmp"
    try:
        with temporary.open("wb") as file:
            torch.save({"format": FORMAT, **fields}, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, folder / STATE_FILE)
    finally:
        temporary.unlink(missing_ok=True)


def parse_state(data: bytes, run: str, path: Path) -> TrainingState:
    """The state in the bytes of a file that `write_state` wrote.

    Raises:
        TrainingError: it is damaged, or of a run of something else.
    """
    try:
        fields = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
        if fields.pop("format") != FORMAT:
            raise ValueError("another format")
        state = TrainingState(**fields)
    except Exception as error:  # PyTorch raises whatever the damage leads to
        reason = " ".join(str(error).split())[:120]
        raise TrainingError(
            f"the training state {str(path)!r} is damaged ({reason}): delete it to start anew"
        ) from error
    if state.run != run:
        raise TrainingError(
            f"the training state {str(path)!r} is of a run with other data or settings "
            f"({_difference(state.run, run)}): repeat that command to go on, or start anew with --no-resume"
        )
    return state


def _difference(theirs: str, ours: str) -> str:
    """The first line in which two descriptions of a run differ."""
    for one, other in zip(theirs.splitlines(), ours.splitlines(), strict=False):
        if one != other:
            return f"{one!r}, now {other!r}"
    return "it says more or less than this one"
