"""Calibrate the frame encoder of `mini` for 8-bit integers: writes the file that `mini-int8` has beside the checkpoint.

    python -m recipes.flickr8k.calibrate --data flickr8k_train.parquet --out model/data/mini-int8.safetensors

The photographs after those held out are calibrated on, each as it is. The same machine, data and number of threads give
the same file; its SHA-256, which is printed, belongs into `model/pretrained_files.py`.
"""

from __future__ import annotations

import argparse
import copy
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

from model.frame_encoder import EfficientNetLite0
from model.int8_calibration import save_calibration
from model.pretrained_files import INT8_FRAME_FILES, file_sha256
from model.quantization import FEWEST_CALIBRATION_FRAMES, calibrate
from model.weights import load_videobert
from recipes.flickr8k.data import Photographs, read_photographs, view
from recipes.flickr8k.stages import Recipe, cnn_of

_BASE = ("frames/pretrained", "frames/tuned")


def main() -> None:
    """Parse the command line, calibrate, write, say what came out."""
    arguments = _parser().parse_args()
    torch.set_num_threads(arguments.threads)
    photographs = read_photographs(arguments.data, Recipe.seed)
    frames = calibration_frames(photographs, arguments.held_out, arguments.photographs)
    original = cnn_of(load_videobert("mini", runtime="torch"))
    calibrated = write_calibration(original, frames, arguments.out)
    with torch.no_grad():
        cosines = F.cosine_similarity(calibrated(frames)[:, 0], original(frames)[:, 0])
    print(
        f"{len(frames)} photographs, on which the features' cosine with the original is {cosines.mean():.4f}",
        flush=True,
    )
    print(f"{arguments.out} written, SHA-256 {file_sha256(arguments.out)}", flush=True)


def calibration_frames(photographs: Photographs, num_held_out: int, num: int) -> torch.Tensor:
    """Uint8 [N, 224, 224, 3] of the `num` photographs after the first `num_held_out`."""
    chosen = photographs.part(num_held_out, num_held_out + num)
    if len(chosen) < FEWEST_CALIBRATION_FRAMES:
        raise SystemExit(
            f"at least {FEWEST_CALIBRATION_FRAMES} photographs are needed to calibrate on, got {len(chosen)} of "
            f"{len(photographs)} after the {num_held_out} held out: give more --data"
        )
    return torch.from_numpy(np.stack([view(jpeg, 0, Recipe.seed) for jpeg in chosen.jpegs]))


def write_calibration(original: EfficientNetLite0, frames: torch.Tensor, out: Path) -> EfficientNetLite0:
    """Calibrates a copy of `original`, writes what was found to `out`, and returns the copy."""
    calibrated = copy.deepcopy(original)
    calibrate(original, calibrated, frames)
    save_calibration(calibrated, {role: INT8_FRAME_FILES[role].sha256 for role in _BASE}, out)
    return calibrated


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m recipes.flickr8k.calibrate", description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="Parquet file with the columns jpeg and captions")
    parser.add_argument("--out", type=Path, required=True, help="the calibration to write, *.safetensors")
    parser.add_argument("--held-out", type=int, default=1000, help="photographs to leave out, which one measures on")
    parser.add_argument("--photographs", type=int, default=64, help="how many are calibrated on")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads; another number may give another file")
    return parser


if __name__ == "__main__":
    main()
