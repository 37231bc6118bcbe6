"""Decoding on an NVIDIA GPU (NVDEC) by FFmpeg; nothing else knows of it.

Packets, timestamps and ways of reading are those of the CPU, and for the codecs here so are the pixels, to the last
bit. Frames stay on the GPU until they are resized; those that nobody looks at are never copied. Whatever goes wrong on
the GPU is left to the CPU's decoder: see `video.read_video`.
"""

from __future__ import annotations

import ctypes
import os
import random
from fractions import Fraction
from typing import Any

import av
import av.error
import numpy as np
from av.codec.hwaccel import HWAccel, hwdevices_available
from av.packet import Packet
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame

_DEVICE_TYPE = FRAME_FORMAT = "cuda"  # FFmpeg's names
# Their standards fix every bit of the pixels; those of MPEG-4 and older leave the rounding of the transform open. AV1
# would be one more, but FFmpeg takes dav1d for it, which knows no GPU.
_EXACT_CODECS = ("h264", "hevc", "vp8", "vp9")
# One core decodes smaller ones faster: on an H200 640 x 360 took 1.5 times as long as there, 1920 x 1080 0.6 times. And
# where a picture keeps its size, as in small thumbnails, swscale gives other colours for NV12 than for planes.
_MIN_PIXELS = 500_000
_TRIED_SIZE_PX, _TRIED_FRAMES = (320, 240), 3


class HardwareError(Exception):
    """The GPU cannot be used: one line that says what to do."""


class HardwareDecoder:
    """One GPU, any of those that CUDA shows to this process. For the life of the process: CUDA starts but once.

    Attributes:
        accel: what PyAV opens a file with.

    Raises:
        HardwareError: there is none, or it does not decode a few frames as the CPU does.
    """

    def __init__(self) -> None:
        if _DEVICE_TYPE not in hwdevices_available():
            raise HardwareError("this build of PyAV has no CUDA decoders: reinstall av from its wheel")
        device = str(random.randrange(_num_gpus()))  # so that workers, which know nothing of each other, spread
        self.accel = _accel(device)
        self._decoder = _tried_out(_accel(device, allow_software_fallback=False))  # holds CUDA's context

    def decodes(self, context: VideoCodecContext) -> bool:
        """Whether a stream that was opened with `accel` may be decoded here."""
        is_exact = context.is_hwaccel and context.codec.canonical_name in _EXACT_CODECS
        return is_exact and context.width * context.height >= _MIN_PIXELS


def is_like_the_cpus(frame: VideoFrame, context: VideoCodecContext) -> bool:
    """Whether a frame has the pixels that the CPU's would have; to be asked of each one from the GPU.

    FFmpeg cuts off there what is to be cut off at the right and at the bottom, but not at the left and the top.
    """
    is_whole = (frame.width, frame.height) == (context.width, context.height)
    return is_whole and frame.width * frame.height >= _MIN_PIXELS


def _accel(device: str, *, allow_software_fallback: bool = True) -> HWAccel:
    """With the fallback FFmpeg decodes by itself what it cannot set the GPU up for, such as H.264 in 4:4:4."""
    return HWAccel(_DEVICE_TYPE, device, allow_software_fallback=allow_software_fallback, is_hw_owned=True)


def _num_gpus() -> int:
    """How many GPUs CUDA shows; asked of the driver itself, since FFmpeg's errors do not say what is missing."""
    driver = _library("libcuda.so.1", "there is no NVIDIA driver: install it, and start containers with --gpus all")
    _library("libnvcuvid.so.1", "the NVIDIA driver lacks its video part: add video to NVIDIA_DRIVER_CAPABILITIES")
    count = ctypes.c_int(0)
    code = driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count))
    if code or not count.value:
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        hidden = "" if visible is None else f": CUDA_VISIBLE_DEVICES is {visible!r}"
        raise HardwareError(f"the NVIDIA driver shows no GPU (CUDA error {code}){hidden}")
    return count.value


def _library(name: str, problem: str) -> Any:
    try:
        return ctypes.CDLL(name)
    except OSError:
        raise HardwareError(f"{problem} ({name} cannot be loaded)") from None


def _tried_out(accel: HWAccel) -> VideoCodecContext:
    """A decoder that has decoded some frames on the GPU, with the pixels of the CPU."""
    packets = _some_packets()
    try:
        decoder = VideoCodecContext.create("h264", "r", hwaccel=accel)
        frames = _decoded(decoder, packets)
        pixels = [frame.to_ndarray(format="nv12") for frame in frames]
    except (av.error.FFmpegError, ValueError, RuntimeError) as error:
        raise HardwareError(
            f"the GPU does not decode H.264 ({error}): it has no NVDEC, or its memory is full"
        ) from None
    expected = _decoded(VideoCodecContext.create("h264", "r"), packets)
    if {frame.format.name for frame in frames} != {FRAME_FORMAT} or not np.array_equal(
        pixels, [frame.to_ndarray(format="nv12") for frame in expected]
    ):
        raise HardwareError("the GPU does not decode H.264 as the CPU does: update its driver")
    return decoder


def _decoded(decoder: VideoCodecContext, packets: list[Packet]) -> list[VideoFrame]:
    return [frame for packet in [*packets, None] for frame in decoder.decode(packet)]


def _some_packets() -> list[Packet]:
    """A few frames of noise that moves, as H.264."""
    width, height = _TRIED_SIZE_PX
    encoder = VideoCodecContext.create("libx264", "w")
    encoder.width, encoder.height, encoder.pix_fmt, encoder.framerate = width, height, "yuv420p", Fraction(25)
    encoder.thread_count = 1
    noise = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    pictures = [np.roll(noise, 8 * number, axis=1) for number in range(_TRIED_FRAMES)]
    frames = [VideoFrame.from_ndarray(picture, format="rgb24") for picture in pictures]
    for number, frame in enumerate(frames):
        frame.pts = number
    return [packet for frame in [*frames, None] for packet in encoder.encode(frame)]
