"""How frames are given to a GPU: in batches of two sizes, which are filled up. Without PyTorch."""

from __future__ import annotations

from collections.abc import Sequence

# How many frames a GPU is given at once. A size that a thread has not met yet costs it two seconds, in which cuDNN
# plans every convolution, so there are only two: one that takes hardly longer than a single frame, and one that keeps a
# GPU busy. 256 of 224 px need about 2 GB in EfficientNet-Lite0.
GPU_BATCH_SIZES = (32, 256)


def gpu_batches(num_frames: int, sizes: Sequence[int] = GPU_BATCH_SIZES) -> list[int]:
    """The sizes of the batches that so many frames are given to a GPU in: large ones, and small ones for the rest.

    So few frames are filled up: with 120 in one batch of 256 a large network would take twice as long as with four
    batches of 32.
    """
    num_large, rest = divmod(num_frames, sizes[-1])
    num_small = -(-rest // sizes[0])
    if num_small * sizes[0] >= sizes[-1]:  # also where there is one size only
        num_large, num_small = num_large + 1, 0
    return [sizes[-1]] * num_large + [sizes[0]] * num_small
