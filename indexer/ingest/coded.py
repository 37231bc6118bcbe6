"""Packets that are decoded or left out, as plain data."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Generic, TypeVar

P = TypeVar("P")


class NotOrdinaryError(Exception):
    """The packets are not as in every well-made file: only decoding all of them can tell what is shown when."""


@dataclass(slots=True, kw_only=True, eq=False)  # frozen, each would take twice as long to make
class Coded(Generic[P]):
    """A packet.

    Attributes:
        time_s: when its frame is shown, seconds of the video's timeline.
        decode_s: when it is decoded; no packet that follows is shown before that. Minus infinity if that is not known.
        period_s: how long the frame lasts if no other follows.
        is_key: decoding may start here; frames shown after this one need nothing that comes before it.
        is_shown: not marked as there for the decoder only.
    """

    time_s: float
    decode_s: float
    period_s: float
    is_key: bool
    is_shown: bool
    num_bytes: int
    packet: P


@dataclass(slots=True, kw_only=True, eq=False)
class Step(Generic[P]):
    """Decode this packet next.

    Attributes:
        restart: empty the decoder first; packets have been left out.
        targets: what its frame serves, seconds; empty if it is decoded only because others refer to it.
        is_leading: its frame is shown before the key frame that decoding started with, and may refer to what was left
            out: whatever becomes of it does not matter.
    """

    coded: Coded[P]
    restart: bool = False
    targets: list[float] = field(default_factory=list)
    is_leading: bool = False
