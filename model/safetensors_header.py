"""What stands at the front of a safetensors file: names, types and shapes of its tensors. Needs no torch.

Source: the format's description, https://github.com/huggingface/safetensors#format.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from model.errors import WeightsDamagedError

SUFFIX = ".safetensors"
_MAX_HEADER_BYTES = 64 << 20
_FLOATS = {"F64": "<d", "F32": "<f", "F16": "<e"}


class TensorEntry(NamedTuple):
    """One tensor: its type as the format names it (e.g. "F32"), its shape, and its bytes from `offset` to `end`."""

    dtype: str
    shape: tuple[int, ...]
    offset: int
    end: int


class SafetensorsHeader(NamedTuple):
    """Attributes: metadata: strings by name. tensors: by name."""

    metadata: Mapping[str, str]
    tensors: Mapping[str, TensorEntry]


def read_safetensors_header(path: Path) -> SafetensorsHeader:
    """Read the header, and check that the file is as long as it says.

    Raises:
        WeightsDamagedError: it is cut short, or no safetensors file.
    """
    with path.open("rb") as stream:
        size = int.from_bytes(stream.read(8), "little")
        text = stream.read(min(size, _MAX_HEADER_BYTES))
    start = 8 + size
    try:
        entries = json.loads(text)
        metadata = entries.pop("__metadata__", {})
        end = start + max(entry["data_offsets"][1] for entry in entries.values())
        tensors = {
            name: TensorEntry(entry["dtype"], tuple(entry["shape"]), *(start + at for at in entry["data_offsets"]))
            for name, entry in entries.items()
        }
    except (ValueError, KeyError, TypeError, AttributeError):
        raise WeightsDamagedError(f"{path} is not a {SUFFIX} file, or it is cut short; copy it again") from None
    if path.stat().st_size != end:
        raise WeightsDamagedError(f"{path} must have {end} bytes, got {path.stat().st_size}; copy it again")
    return SafetensorsHeader(metadata, tensors)


def tensors_sha256(path: Path, prefix: str) -> dict[str, str]:
    """Checksum of the bytes of each tensor whose name begins with `prefix`.

    Raises:
        WeightsDamagedError: as `read_safetensors_header`.
    """
    sums = {}
    with path.open("rb") as stream:
        for name, entry in read_safetensors_header(path).tensors.items():
            if name.startswith(prefix):
                stream.seek(entry.offset)
                sums[name] = hashlib.sha256(stream.read(entry.end - entry.offset)).hexdigest()
    return sums


def read_number(path: Path, entry: TensorEntry) -> float:
    """The first number of a tensor of floats.

    Raises:
        WeightsDamagedError: it holds no floats.
    """
    with path.open("rb") as stream:
        stream.seek(entry.offset)
        if entry.dtype == "BF16":  # the upper half of a float32
            return float(struct.unpack("<f", b"\0\0" + stream.read(2))[0])
        if entry.dtype not in _FLOATS:
            raise WeightsDamagedError(f"{path}: a tensor of floats was expected, got {entry.dtype!r}")
        layout = _FLOATS[entry.dtype]
        return float(struct.unpack(layout, stream.read(struct.calcsize(layout)))[0])
