"""What the folder of a timm model says of it: settings and checksums. Needs no torch and no timm.

The layout is that of timm's models on the hub and of `timm.models.save_for_hf(..., safe_serialization=True)`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from model.config import FrameEncoderConfig, VideoBertConfig, mini
from model.errors import ModelError, WeightsDamagedError
from model.hub import CONFIG_FILE, checksums, find_folder, read_json, require_package, tensor_entries

TIMM = "timm"
_NUM_IMAGENET_CLASSES = 1000
_TRAINED = ("fusion.", "gate", "text_encoder.adapter.")  # what `videobert train` makes for such a backbone


class TimmSettings(NamedTuple):
    """What timm needs to build the network, and how pixels go in.

    Attributes:
        architecture: name that `timm.create_model` knows.
        arguments: its other arguments, `num_classes` among them.
        side_px: frames are squares of this side.
        mean, std: of each colour channel, for pixels of 0 to 1.
    """

    architecture: str
    arguments: Mapping[str, Any]
    side_px: int
    mean: tuple[float, ...]
    std: tuple[float, ...]


def find_timm(reference: str) -> Path:
    """The folder of a timm model: a path, a hub id, or a name of timm's own ("resnet18.a1_in1k").

    Raises:
        WeightsNotFoundError: as `find_folder`.
    """
    named = "/" not in reference and not Path(reference).is_dir()
    return find_folder(f"timm/{reference}" if named else reference, TIMM)


def require_timm() -> None:
    """Raises ModelError where timm, or torchvision under it, is not installed."""
    for package in ("timm", "torchvision"):
        require_package(package, "timm", "a backbone of timm")


def read_timm_settings(folder: Path) -> TimmSettings:
    """Reads config.json.

    Raises:
        WeightsNotFoundError, WeightsDamagedError: it is missing, or not of this layout.
    """
    values: Any = read_json(folder / CONFIG_FILE)
    try:
        pixels = values["pretrained_cfg"]
        channels, height, width = pixels["input_size"]
        arguments = {**values.get("model_args", {}), "num_classes": int(values["num_classes"])}
        found = TimmSettings(
            str(values["architecture"]), arguments, int(height), tuple(pixels["mean"]), tuple(pixels["std"])
        )
    except (KeyError, TypeError, ValueError) as error:
        raise WeightsDamagedError(f"{folder / CONFIG_FILE} is not that of a timm model: {error!r}") from error
    if channels != 3 or height != width:
        raise ModelError(f"{folder} must take square colour frames, got {[channels, height, width]}")
    return found


def timm_config(reference: str) -> VideoBertConfig:
    """Settings of a `VideoBert` on a timm backbone, without training.

    Raises:
        WeightsNotFoundError, WeightsDamagedError, ModelError: as `find_timm` and `read_timm_settings`.
    """
    folder = find_timm(reference)
    values: Any = read_json(folder / CONFIG_FILE)
    side_px, tensors = read_timm_settings(folder).side_px, tensor_entries(folder)
    classifier = tensors.get(f"{values['pretrained_cfg'].get('classifier')}.weight")
    shape = classifier[1].shape if classifier else ()
    is_imagenet = len(shape) == 2 and shape[0] == _NUM_IMAGENET_CLASSES
    frames = FrameEncoderConfig(
        backbone=f"{TIMM}:{folder if Path(reference).is_dir() else reference}",
        frame_size_px=side_px,
        num_tokens=1,
        feature_dim=shape[1] if is_imagenet else int(values.get("num_features", 0)),
        num_classes=_NUM_IMAGENET_CLASSES if is_imagenet else 0,
    )
    return replace(mini(), name=TIMM, frames=frames, trained=_TRAINED)


def timm_checksums(folder: Path) -> dict[str, str]:
    """SHA-256 of weights and settings, by role."""
    return {f"frames/{name}": digest for name, digest in checksums(folder, [CONFIG_FILE]).items()}
