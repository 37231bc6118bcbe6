"""Augmentation of clips: the same crop, mirror and light for every frame of a clip, and which frames are taken.

Shapes: T frames of H x W pixels, S = side of the square that comes out. All chance comes from the generator given.
What each of these does to search is measured by `benchmarks/augmentation.py`; see docs/design/augmentation.md.

Source: Szegedy et al., "Going Deeper with Convolutions", 2015, for the random resized crop; Wang et al., "Temporal
Segment Networks", 2016, for the choice of frames; Sun et al., "VideoBERT", 2019, section 3.2, for the random step.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from model.errors import InputError, ModelError

DENOISERS = ("none", "median", "gaussian")
_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601
_KERNEL_PX = 3


@dataclass(frozen=True, kw_only=True)
class VideoAugmentation:
    """What may happen to a clip. The defaults leave it as it is, but for scaling.

    Attributes:
        smallest_crop: share of the area that a crop keeps at least, above 0 up to 1; 1: no crop.
        largest_stretch: most that a crop's width may grow against its height, or the other way round; 1: not at all.
        flip_probability: of mirroring left and right.
        brightness, contrast, saturation: each multiplied by a factor of at most this much below or above 1.
        denoise: "none", "median" or "gaussian", over 3 x 3 pixels, in every clip.
    """

    smallest_crop: float = 1.0
    largest_stretch: float = 1.0
    flip_probability: float = 0.0
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    denoise: str = "none"

    def __post_init__(self) -> None:
        if not 0 < self.smallest_crop <= 1:
            raise ModelError(f"smallest_crop must be above 0 and at most 1, got {self.smallest_crop!r}")
        if self.largest_stretch < 1:
            raise ModelError(f"largest_stretch must be at least 1, got {self.largest_stretch!r}")
        for name in ("flip_probability", "brightness", "contrast", "saturation"):
            if not 0 <= getattr(self, name) <= 1:
                raise ModelError(f"{name} must be between 0 and 1, got {getattr(self, name)!r}")
        if self.denoise not in DENOISERS:
            raise ModelError(f"denoise must be one of {', '.join(DENOISERS)}, got {self.denoise!r}")


class Box(NamedTuple):
    """A rectangle of pixels."""

    top: int
    left: int
    height: int
    width: int


def augment_clip(frames: Tensor, settings: VideoAugmentation, side_px: int, generator: torch.Generator) -> Tensor:
    """One random version of a clip: denoised, cropped, scaled, mirrored and lit alike in every frame.

    Args:
        frames: uint8 [T, H, W, 3], RGB.
        settings: what may happen.
        side_px: S; the crop is scaled to this square, whatever its shape.
        generator: on the CPU.

    Returns:
        uint8 [T, S, S, 3].

    Raises:
        InputError: another shape or dtype, or no pixels.
    """
    if frames.dtype != torch.uint8 or frames.ndim != 4 or frames.shape[3] != 3 or 0 in frames.shape:
        dtype = str(frames.dtype).removeprefix("torch.")
        raise InputError(f"frames must be uint8 [T, H, W, 3], none of them 0, got {dtype} {list(frames.shape)}")
    pixels = frames.permute(0, 3, 1, 2).float()  # [T, 3, H, W]
    pixels = denoised(pixels, settings.denoise)
    top, left, height, width = random_box(frames.shape[1], frames.shape[2], settings, generator)
    pixels = pixels[:, :, top : top + height, left : left + width]
    if (height, width) != (side_px, side_px):
        pixels = F.interpolate(pixels, (side_px, side_px), mode="bilinear", antialias=True)
    if _uniform(generator) < settings.flip_probability:
        pixels = pixels.flip(3)
    pixels = _relit(pixels, settings, generator)
    return pixels.round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1)


def random_box(height: int, width: int, settings: VideoAugmentation, generator: torch.Generator) -> Box:
    """A crop of random area and stretch at a random place, within a picture of that size."""
    area = _uniform(generator, settings.smallest_crop, 1.0)
    most = math.log(settings.largest_stretch)
    stretch = math.exp(_uniform(generator, -most, most))
    crop_height = max(1, min(height, round(height * math.sqrt(area / stretch))))
    crop_width = max(1, min(width, round(width * math.sqrt(area * stretch))))
    top = int(_uniform(generator) * (height - crop_height + 1))
    left = int(_uniform(generator) * (width - crop_width + 1))
    return Box(top, left, crop_height, crop_width)


def denoised(pixels: Tensor, method: str) -> Tensor:
    """Float [T, 3, H, W] -> the same shape: the median of 3 x 3 pixels, their mean by 1-2-1 weights, or untouched."""
    if method == "none":
        return pixels
    height, width = pixels.shape[2:]
    wide = F.pad(pixels, (1, 1, 1, 1), mode="replicate")
    near = [wide[:, :, y : y + height, x : x + width] for y in range(_KERNEL_PX) for x in range(_KERNEL_PX)]
    if method == "median":
        return torch.stack(near).median(dim=0).values
    weights = [y * x / 16 for y in (1, 2, 1) for x in (1, 2, 1)]
    return torch.stack([weight * shifted for weight, shifted in zip(weights, near, strict=True)]).sum(dim=0)


def spread_frames(num_frames: int, count: int, generator: torch.Generator | None = None) -> Tensor:
    """Which frames to take: one at random in each of `count` equal stretches; without a generator, the middle ones.

    Args:
        num_frames: frames there are, at least 1.
        count: frames wanted, at least 1. Where there are fewer, some come several times.
        generator: on the CPU.

    Returns:
        int64 [count], ascending.

    Raises:
        InputError: a number is below 1.
    """
    if num_frames < 1 or count < 1:
        raise InputError(f"num_frames and count must be at least 1, got {num_frames!r} and {count!r}")
    inside = torch.full((count,), 0.5) if generator is None else torch.rand(count, generator=generator)
    places = (torch.arange(count).double() + inside.double()) * num_frames / count
    return places.long().clamp(max=num_frames - 1)


def random_step(num_frames: int, max_step: int, generator: torch.Generator) -> Tensor:
    """Every n-th frame, n drawn from 1 to `max_step` (the paper: 5), starting at a random one of the first n.

    Returns:
        int64, ascending, at least one.

    Raises:
        InputError: a number is below 1.
    """
    if num_frames < 1 or max_step < 1:
        raise InputError(f"num_frames and max_step must be at least 1, got {num_frames!r} and {max_step!r}")
    step = int(torch.randint(1, max_step + 1, (), generator=generator))
    first = int(torch.randint(min(step, num_frames), (), generator=generator))
    return torch.arange(first, num_frames, step)


def _relit(pixels: Tensor, settings: VideoAugmentation, generator: torch.Generator) -> Tensor:
    """Brightness moves towards black, contrast towards the clip's mean grey, saturation towards each pixel's grey."""
    brightness, contrast, saturation = (
        _uniform(generator, 1 - most, 1 + most)
        for most in (settings.brightness, settings.contrast, settings.saturation)
    )
    pixels = pixels * brightness
    grey = (pixels * pixels.new_tensor(_LUMA)[:, None, None]).sum(dim=1, keepdim=True)
    pixels = grey.mean() + contrast * (pixels - grey.mean())
    grey = grey.mean() + contrast * (grey - grey.mean())
    return grey + saturation * (pixels - grey)


def _uniform(generator: torch.Generator, low: float = 0.0, high: float = 1.0) -> float:
    return low + (high - low) * float(torch.rand((), generator=generator, dtype=torch.float64))
