"""What every benchmark shares: the demo videos, and a report on stdout and in benchmarks/results/."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).with_name("results")
_PACKAGES = ("av", "deltalake", "faiss-cpu", "openvino", "pyarrow", "ray", "torch")


def demo_videos(folder: Path) -> Path:
    """Makes the demo's videos in the folder, and returns it."""
    from demo.make_videos import make_videos  # loads PyAV, which a benchmark of memory leaves to others

    make_videos(folder)
    return folder


def machine() -> dict[str, Any]:
    """Cores, processor and versions: what a figure depends on."""
    return {
        "cores": len(os.sched_getaffinity(0)),
        "processor": platform.processor() or platform.machine(),
        "python": platform.python_version(),
        **{package: version(package) for package in _PACKAGES if find_spec(package.removesuffix("-cpu"))},
    }


def report(name: str, figures: Mapping[str, Any]) -> None:
    """Prints the figures and writes them, with the machine's facts, to benchmarks/results/NAME.json.

    One figure a line; those of a mapping stand below its name.
    """
    width = max(len(figure) for figure in figures)
    print(f"== {name}")
    for figure, value in figures.items():
        if isinstance(value, Mapping):
            print(figure, *(f"  {name}  {part}" for name, part in value.items()), sep="\n")
        else:
            print(f"{figure:<{width}}  {value}")
    RESULTS.mkdir(exist_ok=True)
    text = json.dumps({"figures": dict(figures), "machine": machine()}, indent=2)
    (RESULTS / f"{name}.json").write_text(text + "\n", encoding="utf-8")
