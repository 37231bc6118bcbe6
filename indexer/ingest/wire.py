"""Messages between the guard and its decoding child: one frame of the protocol is

    4 bytes length of the head · the head, JSON · the bodies, raw bytes, whose lengths the head lists as "bodies"

Nothing is unpickled, so a decoder taken over by a hostile file cannot run code in the parent.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from typing import Any

# Asked for, for messages to the parent: what Linux gives everybody, and room for some frames of 224 px.
PIPE_BYTES = 1 << 20
MAX_HEAD_BYTES = 1 << 20
MAX_BODY_BYTES = 1 << 28
_LENGTH = struct.Struct(">I")


class WireError(Exception):
    """The bytes are no message, or stop in the middle of one."""


def pack(head: dict[str, Any], *bodies: bytes | memoryview) -> list[bytes | memoryview]:
    """The buffers that make up one message, to be written one after the other."""
    text = json.dumps({**head, "bodies": [len(body) for body in bodies]}).encode("ascii")
    return [_LENGTH.pack(len(text)) + text, *bodies]


def unpack(read_exactly: Callable[[int], bytearray]) -> tuple[dict[str, Any], list[bytearray]]:
    """Reads one message with a function that returns exactly so many bytes or raises.

    Raises:
        WireError: for a head that is not ours, or lengths that are absurd.
    """
    (length,) = _LENGTH.unpack(read_exactly(_LENGTH.size))
    if length > MAX_HEAD_BYTES:
        raise WireError(f"a head of {length} bytes")
    try:
        head = json.loads(bytes(read_exactly(length)))
        lengths = [int(length) for length in head.pop("bodies")]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise WireError("a head that is not ours") from error
    if any(not 0 <= length <= MAX_BODY_BYTES for length in lengths):
        raise WireError(f"bodies of {lengths} bytes")
    return head, [read_exactly(length) for length in lengths]
