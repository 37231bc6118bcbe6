"""Models that are loaded once for all tests, and real photographs that come with scikit-image and scikit-learn."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from model import VideoBert, load_model


@pytest.fixture(scope="session")
def mini() -> VideoBert:
    return load_model("mini", runtime="torch")


@pytest.fixture(scope="session")
def mini_zero() -> VideoBert:
    return load_model("mini-zero", runtime="torch")


@pytest.fixture
def tiny() -> VideoBert:
    return load_model("tiny_test")


@pytest.fixture(scope="session")
def photograph() -> Callable[[str], NDArray[np.uint8]]:
    """A photograph by "package/path in it" -> uint8 [224, 224, 3]."""

    def read(name: str) -> NDArray[np.uint8]:
        package, _, path = name.partition("/")
        spec = importlib.util.find_spec(package)
        if spec is None or not spec.submodule_search_locations:
            pytest.skip(f"{package}, whose photographs are used, is not installed")
        with Image.open(Path(spec.submodule_search_locations[0], path)) as image:
            return np.asarray(image.convert("RGB").resize((224, 224), Image.Resampling.BICUBIC))

    return read
