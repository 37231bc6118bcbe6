"""Safetensors files: what stands at their front, read without torch, and writing them whole and always alike.

Source: the format's description, https://github.com/huggingface/safetensors#format.
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from model.errors import WeightsDamagedError

if TYPE_CHECKING:
    from torch import Tensor

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


def write_safetensors(tensors: Mapping[str, Tensor], path: Path, metadata: Mapping[str, str]) -> None:
    """Write a file, whole or not at all. Equal tensors and metadata make equal files, so that they have one checksum.

    The library's own `save_file` puts the metadata in any order, and makes files that only their owner can read.
    """
    from safetensors.torch import save

    data = save(dict(tensors), metadata=dict(metadata))
    size = int.from_bytes(data[:8], "little")
    entries = json.loads(data[8 : 8 + size])
    entries["__metadata__"] = dict(sorted(metadata.items()))
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # the tensors begin at a multiple of 8
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as stream:
            stream.write(len(text).to_bytes(8, "little") + text + data[8 + size :])
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


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
