"""How far from what a target asks for its frame may be. Plain data: it is sent to the decoding child."""

from __future__ import annotations

from dataclasses import dataclass

from indexer.config import DEFAULT_SAMPLING_MODE, SamplingConfig

_FURTHEST_KEY_FRAME_S = 30.0


@dataclass(frozen=True, kw_only=True)
class Leeway:
    """What is allowed to make decoding cheaper. By default nothing: each target has the very frame shown at it.

    Attributes:
        key_frame_s: a key frame so near to a target, before or after it, is taken in place of the frame shown then.
        earlier_s: before a key frame that the next target takes, a target takes one of the frames shown in the last so
            many seconds, so that what follows in its group need not be decoded: the one that the target before took, or
            else the one decoded first. For a `key_frame_s` of at most the time between two targets.
        within_moment: no frame taken for these reasons lies outside of the moment of its target.
    """

    key_frame_s: float = 0.0
    earlier_s: float = 0.0
    within_moment: bool = False


EXACTLY = Leeway()


def leeway_of(sampling: SamplingConfig) -> Leeway:
    """That of each mode."""
    period_s = 1 / sampling.frame_rate_hz
    return {
        "exact": EXACTLY,
        "auto": Leeway(key_frame_s=period_s, earlier_s=period_s, within_moment=True),
        "keyframes": Leeway(key_frame_s=_FURTHEST_KEY_FRAME_S),
    }[sampling.mode or DEFAULT_SAMPLING_MODE]
