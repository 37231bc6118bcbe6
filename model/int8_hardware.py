"""What this machine's processor makes of 8-bit integers: are its products right, and is it faster by them?

What OpenVINO lists as a processor's abilities tells neither, as it always lists INT8. So both are tried. Without VNNI
or AMX pairs of products are added in 16 bits, which overflow: features of `mini` then have a cosine of 0.965 with the
right ones. Both are tried once for each processor, and the outcome is kept in the user's cache folder: asking again
loads neither OpenVINO nor torch.

Source: Intel, "oneDNN: Nuances of int8 computations", on the instruction vpmaddubsw.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import os
import platform
import sys
import time
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from model.cache import read_cached, write_cached

LEAST_GAIN = 1.1
_ROUNDS = 8
_CHANNELS, _SIDE, _EXPANSION, _KERNEL = 80, 14, 6, 5  # of the blocks in the middle of EfficientNet-Lite0
_NUM_BLOCKS = 4
_MAX_STATE, _MAX_CODE = 255, 127
# What Linux has where PyTorch may find a GPU: NVIDIA's driver, the one of its small boards, WSL's, AMD's.
_GPU_DEVICES = ("/dev/nvidiactl", "/dev/nvmap", "/dev/dxg", "/dev/kfd")
_SETTINGS = {"INFERENCE_NUM_THREADS": 1, "ENABLE_CPU_PINNING": False, "INFERENCE_PRECISION_HINT": "f32"}


@cache
def integers_are_exact() -> bool:
    """Whether OpenVINO adds the largest products there are without overflow on this processor."""
    from openvino import opset13 as ops

    states = ops.parameter([1, _CHANNELS, _SIDE, _SIDE], np.float32)
    weight = ops.constant(np.full((_CHANNELS, _CHANNELS, 1, 1), _MAX_CODE, np.int8))
    request = _compiled([_convolution(states, weight, float(_MAX_STATE))], states)
    found = request.infer([np.full((1, _CHANNELS, _SIDE, _SIDE), _MAX_STATE, np.float32)])[0]
    return bool(np.allclose(found, _CHANNELS * _MAX_STATE * _MAX_CODE))


def why_int8_does_not_pay(device: str) -> str:
    """One line for people on why floats would be the better choice here, or "" where integers pay.

    Args:
        device: where frames are encoded, as PyTorch names it; "auto" is taken for a GPU where there is one.
    """
    if device.startswith("cuda") or (device == "auto" and _has_gpu()):
        return "a GPU computes it in float32, slower than a model in floats"
    if importlib.util.find_spec("openvino") is None:
        return "without OpenVINO integers are only imitated, slower than floats (pip install openvino)"
    gain = int8_gain()
    if not gain:
        return "this processor has no exact products of 8-bit integers (VNNI), so they are imitated in floats"
    return "" if gain >= LEAST_GAIN else f"on this processor integers are only {gain:.2f} times as fast as floats"


def int8_gain() -> float:
    """How many times as many frames a second as in floats one thread computes in integers, about; 0 if not exactly.

    Tried once for each processor and version of OpenVINO, which takes half a second with loading it.
    """
    hidden = os.environ.get("ONEDNN_MAX_CPU_ISA", "")  # instructions that OpenVINO is told not to use
    facts = (_openvino_version(), platform.machine(), _processor(), hidden)
    name = f"int8-gain-{hashlib.blake2b(repr(facts).encode(), digest_size=16).hexdigest()}.txt"
    if (known := read_cached(name)) is not None:
        return float(known)
    gain = _measure() if integers_are_exact() else 0.0
    write_cached(name, f"{gain:.3f}".encode())
    return gain


def _processor() -> tuple[str, ...]:
    """Its name and instruction sets, as Linux lists them: with and without VNNI it may have one name, "AMD EPYC"."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return (platform.processor(),)
    kinds = ("model name", "flags", "Features", "CPU part")
    return tuple(next((line for line in lines if line.startswith(kind)), "") for kind in kinds)


def _openvino_version() -> str:
    """Without loading it; "" where it was not installed as a package."""
    with suppress(importlib.metadata.PackageNotFoundError):
        return importlib.metadata.version("openvino")
    return ""


def _has_gpu() -> bool:
    """Whether PyTorch can use one. It is asked only where there may be one, as loading it takes a second."""
    if sys.platform == "linux" and not any(Path(device).exists() for device in _GPU_DEVICES):
        return False
    import torch

    return torch.cuda.is_available()


def _measure() -> float:
    """The best of several rounds in turns: what else the machine does only ever adds time."""
    requests = {in_integers: _blocks(in_integers=in_integers) for in_integers in (False, True)}
    states = np.random.default_rng(0).random((1, _CHANNELS, _SIDE, _SIDE), dtype=np.float32)
    taken: dict[bool, list[float]] = {in_integers: [] for in_integers in requests}
    for _ in range(_ROUNDS):
        for in_integers, request in requests.items():
            started_s = time.perf_counter()
            request.infer([states])
            taken[in_integers].append(time.perf_counter() - started_s)
    return min(taken[False]) / min(taken[True])


def _blocks(*, in_integers: bool) -> Any:
    """Some inverted residuals with random weights."""
    from openvino import opset13 as ops

    random, inner = np.random.default_rng(0), _CHANNELS * _EXPANSION

    def convolve(states: Any, *shape: int) -> Any:
        codes = ops.constant(random.integers(-_MAX_CODE, _MAX_CODE + 1, shape, np.int8))
        return ops.clamp(_convolution(states, codes, 6.0 if in_integers else None), 0.0, 6.0)

    frames = ops.parameter([1, _CHANNELS, _SIDE, _SIDE], np.float32)
    states = frames
    for _ in range(_NUM_BLOCKS):
        filtered = convolve(convolve(states, inner, _CHANNELS, 1, 1), inner, 1, 1, _KERNEL, _KERNEL)
        states = ops.add(states, convolve(filtered, _CHANNELS, inner, 1, 1))
    return _compiled([states], frames)


def _convolution(states: Any, codes: Any, high: float | None) -> Any:
    """In integers where the states are rounded to 256 steps from 0 to `high`, in floats where it is None."""
    from openvino import opset13 as ops

    if high is not None:
        states = ops.fake_quantize(states, 0.0, high, 0.0, high, _MAX_STATE + 1)
    weight = ops.multiply(ops.convert(codes, np.float32), np.float32(1))
    padding = [codes.shape[-1] // 2] * 2
    multiply = ops.group_convolution if len(codes.shape) == 5 else ops.convolution
    return multiply(states, weight, [1, 1], padding, padding, [1, 1])


def _compiled(results: list[Any], parameter: Any) -> Any:
    import openvino as ov

    return ov.Core().compile_model(ov.Model(results, [parameter], "trial"), "CPU", _SETTINGS).create_infer_request()
