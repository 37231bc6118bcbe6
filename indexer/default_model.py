"""The model of a new index where nobody names one: in 8-bit integers where this machine is faster by them.

docs/design/compression.md has what they cost and bring.
"""

from __future__ import annotations

from typing import NamedTuple

from indexer.config import DEFAULT_MODEL, INT8_MODEL, RunConfig
from model.int8_hardware import int8_gain, why_int8_does_not_pay


class DefaultModel(NamedTuple):
    """A choice, and the clause that gives the reason for it."""

    name: str
    reason: str


def default_model(run: RunConfig) -> DefaultModel:
    """The model for a new index that `run` fills. Quick, as what the processor can do is tried once and kept."""
    if run.joins_cluster:
        return DefaultModel(DEFAULT_MODEL, "nothing is known here of the processors of a cluster")
    if reason := why_int8_does_not_pay(run.device):
        return DefaultModel(DEFAULT_MODEL, f"8-bit integers do not pay here: {reason}")
    speed = f"this processor looks at frames about {int8_gain():.1f} times as fast in 8-bit integers"
    return DefaultModel(INT8_MODEL, f"{speed}, at nearly the same recall")
