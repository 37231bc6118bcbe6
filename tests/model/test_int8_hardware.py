"""What is said of this machine's processor, and that speed is measured once."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from model import int8_hardware
from model.cache import cached_path

pytest.importorskip("openvino")


@pytest.fixture
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return lambda: [path.name for path in cached_path("any").parent.glob("int8-gain-*")]


@pytest.fixture
def exact(monkeypatch):
    monkeypatch.setattr(int8_hardware, "integers_are_exact", lambda: True)


def test_gain_is_measured_once(own_cache, exact, monkeypatch):
    first = int8_hardware.int8_gain()
    monkeypatch.setattr(int8_hardware, "_measure", None)

    assert len(own_cache()) == 1
    assert 0.1 < first < 20
    assert int8_hardware.int8_gain() == pytest.approx(first, abs=1e-3)


def test_gain_of_another_processor_of_the_same_name_is_measured_anew(own_cache, exact, monkeypatch):
    for flags, gain in (("flags : avx2", 1.0), ("flags : avx2 avx_vnni", 2.0)):
        monkeypatch.setattr(int8_hardware, "_processor", lambda flags=flags: ("AMD EPYC", flags))
        monkeypatch.setattr(int8_hardware, "_measure", lambda gain=gain: gain)
        assert int8_hardware.int8_gain() == gain
    assert len(own_cache()) == 2


def test_gain_with_instructions_hidden_is_measured_anew(own_cache, exact, monkeypatch):
    for instructions, gain in (("", 2.0), ("AVX2", 1.0)):
        monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", instructions)
        monkeypatch.setattr(int8_hardware, "_measure", lambda gain=gain: gain)
        assert int8_hardware.int8_gain() == gain


def test_inexact_products_are_found_out_once_and_not_timed(own_cache, monkeypatch):
    monkeypatch.setattr(int8_hardware, "integers_are_exact", lambda: False)
    monkeypatch.setattr(int8_hardware, "_measure", None)
    assert int8_hardware.int8_gain() == 0
    monkeypatch.setattr(int8_hardware, "integers_are_exact", None)
    assert int8_hardware.int8_gain() == 0
    assert "VNNI" in int8_hardware.why_int8_does_not_pay("cpu")


def test_asking_again_loads_neither_openvino_nor_torch(own_cache, exact, monkeypatch):
    monkeypatch.setattr(int8_hardware, "_measure", lambda: 2.0)
    int8_hardware.int8_gain()
    code = (
        "import sys; from model import int8_hardware as h; h._GPU_DEVICES = (); "
        "print(repr(h.why_int8_does_not_pay('auto')), {'openvino', 'torch'} & set(sys.modules))"
    )
    assert _output_of(code) == "'' set()"


@pytest.mark.parametrize(("gain", "said"), [(2.0, ""), (1.1, ""), (1.04, "only 1.04 times as fast as floats")])
def test_integers_pay_where_they_are_faster(monkeypatch, gain, said):
    monkeypatch.setattr(int8_hardware, "int8_gain", lambda: gain)
    reason = int8_hardware.why_int8_does_not_pay("cpu")
    assert said in reason
    assert bool(reason) == bool(said)


def test_integers_do_not_pay_on_a_gpu_or_without_openvino(monkeypatch):
    monkeypatch.setattr(int8_hardware, "int8_gain", lambda: 2.0)
    monkeypatch.setattr(int8_hardware, "_has_gpu", lambda: True)
    assert "float32" in int8_hardware.why_int8_does_not_pay("cuda:1")
    assert "float32" in int8_hardware.why_int8_does_not_pay("auto")
    assert int8_hardware.why_int8_does_not_pay("cpu") == ""
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert "pip install openvino" in int8_hardware.why_int8_does_not_pay("cpu")


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux lists its GPUs as files")
@pytest.mark.parametrize(("device_exists", "torch_finds_one"), [(True, True), (True, False), (False, True)])
def test_gpu_is_one_that_the_system_lists_and_pytorch_can_use(tmp_path, monkeypatch, device_exists, torch_finds_one):
    monkeypatch.setattr("torch.cuda.is_available", lambda: torch_finds_one)
    monkeypatch.setattr(int8_hardware, "_GPU_DEVICES", (str(tmp_path if device_exists else tmp_path / "none"),))
    assert int8_hardware._has_gpu() is (device_exists and torch_finds_one)


@pytest.mark.skipif(not int8_hardware.integers_are_exact(), reason="the processor has no exact products to compare")
def test_the_trial_convolution_is_the_rounded_one():
    """The trial must round as the network does, or it would say nothing about it."""
    from openvino import opset13 as ops

    codes = np.random.default_rng(1).integers(-127, 128, (8, 8, 1, 1)).astype(np.int8)
    states = np.random.default_rng(2).uniform(-1, 7, (1, 8, 4, 4)).astype(np.float32)
    parameter = ops.parameter([1, 8, 4, 4], np.float32)
    request = int8_hardware._compiled([int8_hardware._convolution(parameter, ops.constant(codes), 6.0)], parameter)

    rounded = np.round(states.clip(0, 6) / 6 * 255) / 255 * 6
    expected = np.einsum("oi,nihw->nohw", codes[:, :, 0, 0].astype(float), rounded)
    np.testing.assert_allclose(request.infer([states])[0], expected, rtol=1e-4, atol=1e-2)


def _has_vnni() -> bool:
    return "vnni" in " ".join(int8_hardware._processor())


@pytest.mark.skipif(not _has_vnni(), reason="the processor has no VNNI to be hidden")
@pytest.mark.parametrize(("instructions", "expected"), [("ALL", "True"), ("AVX2", "False")])
def test_products_are_exact_with_vnni_and_overflow_without(monkeypatch, instructions, expected):
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", instructions)
    assert _output_of("from model.int8_hardware import integers_are_exact; print(integers_are_exact())") == expected


def _output_of(code: str) -> str:
    folder = Path(__file__).parents[2]
    return subprocess.run(
        [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=True
    ).stdout.strip()
