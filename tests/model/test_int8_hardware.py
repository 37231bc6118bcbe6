"""What is said of this machine's processor, and that speed is measured once."""

from __future__ import annotations

import importlib.util
import os
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


def test_gain_is_measured_once(own_cache, monkeypatch):
    first = int8_hardware.measured_gain()
    monkeypatch.setattr(int8_hardware, "_measure", None)

    assert len(own_cache()) == 1
    assert 0.1 < first < 20
    assert int8_hardware.measured_gain() == pytest.approx(first, abs=1e-3)


def test_gain_of_another_processor_of_the_same_name_is_measured_anew(own_cache, monkeypatch):
    for flags, gain in (("flags : avx2", 1.0), ("flags : avx2 avx_vnni", 2.0)):
        monkeypatch.setattr(int8_hardware, "_instruction_sets", lambda flags=flags: flags)
        monkeypatch.setattr(int8_hardware, "_measure", lambda gain=gain: gain)
        assert int8_hardware.measured_gain() == gain
    assert len(own_cache()) == 2


@pytest.mark.parametrize(("gain", "said"), [(2.0, ""), (1.1, ""), (1.04, "only 1.04 times as fast as floats")])
def test_integers_pay_where_they_are_faster(own_cache, exact, monkeypatch, gain, said):
    monkeypatch.setattr(int8_hardware, "_measure", lambda: gain)
    reason = int8_hardware.why_int8_does_not_pay("cpu")
    assert said in reason
    assert bool(reason) == bool(said)


def test_integers_do_not_pay_without_exact_products_openvino_or_a_cpu(monkeypatch):
    monkeypatch.setattr(int8_hardware, "integers_are_exact", lambda: False)
    assert "VNNI" in int8_hardware.why_int8_does_not_pay("cpu")
    assert "float32" in int8_hardware.why_int8_does_not_pay("cuda:1")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert "pip install openvino" in int8_hardware.why_int8_does_not_pay("cpu")


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
    return "vnni" in int8_hardware._instruction_sets()


@pytest.mark.skipif(not _has_vnni(), reason="the processor has no VNNI to be hidden")
@pytest.mark.parametrize(("instructions", "expected"), [("ALL", "True"), ("AVX2", "False")])
def test_products_are_exact_with_vnni_and_overflow_without(instructions, expected):
    code = "from model.int8_hardware import integers_are_exact; print(integers_are_exact())"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "ONEDNN_MAX_CPU_ISA": instructions},
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == expected
