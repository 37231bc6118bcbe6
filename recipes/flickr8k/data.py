"""Photographs with five captions each, their augmented views, and the clips used to check on video.

Source: Hodosh et al., "Framing Image Description as a Ranking Task", 2013 (Flickr8k).
"""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path

import av
import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray
from PIL import Image, ImageEnhance

Pixels = NDArray[np.uint8]

SIDE_PX = 224
CAPTIONS_PER_IMAGE = 5
NUM_PLAIN_VIEWS = 2  # view 0 is the photograph, view 1 its mirror image, the others are random crops
_SMALLEST_CROP = 0.5  # of the area


@dataclass(frozen=True, kw_only=True)
class Photographs:
    """Flickr8k, in an order shuffled by a seed.

    Attributes:
        jpegs: one encoded image each.
        captions: five each.
    """

    jpegs: list[bytes]
    captions: list[list[str]]

    def __len__(self) -> int:
        return len(self.jpegs)

    def part(self, start: int, stop: int) -> Photographs:
        """Those numbered `start` up to but not including `stop`."""
        return Photographs(jpegs=self.jpegs[start:stop], captions=self.captions[start:stop])


@dataclass(frozen=True, kw_only=True)
class Clip:
    """One video with a caption: frames uint8 [T, 224, 224, 3], one a second."""

    caption: str
    frames: Pixels


def read_photographs(path: Path, seed: int) -> Photographs:
    """Read the table with the columns `jpeg` and `captions`, shuffled."""
    table = pq.read_table(path, columns=["jpeg", "captions"])
    order = np.random.default_rng(seed).permutation(len(table))
    jpegs, captions = table["jpeg"].to_pylist(), table["captions"].to_pylist()
    five = [
        list(islice(cycle(captions[i]), CAPTIONS_PER_IMAGE)) for i in order
    ]  # a few have only four: one is repeated
    return Photographs(jpegs=[jpegs[i] for i in order], captions=five)


def view(jpeg: bytes, number: int, seed: int) -> Pixels:
    """One view of a photograph: uint8 [224, 224, 3]. The same arguments always give the same pixels."""
    with Image.open(io.BytesIO(jpeg)) as file:
        image = file.convert("RGB")
    if number >= NUM_PLAIN_VIEWS:
        image = _random_crop(image, np.random.default_rng([seed, number, len(jpeg), jpeg[-64]]))
    elif number == 1:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return np.asarray(image)


def _random_crop(image: Image.Image, random: np.random.Generator) -> Image.Image:
    """Crop, stretch, mirror half of the time, and vary the light."""
    area, stretch = random.uniform(_SMALLEST_CROP, 1), np.exp(random.uniform(-0.25, 0.25))
    width = min(SIDE_PX, round(SIDE_PX * np.sqrt(area * stretch)))
    height = min(SIDE_PX, round(SIDE_PX * np.sqrt(area / stretch)))
    left, top = random.integers(0, SIDE_PX - width + 1), random.integers(0, SIDE_PX - height + 1)
    box = (int(left), int(top), int(left) + width, int(top) + height)
    image = image.resize((SIDE_PX, SIDE_PX), Image.Resampling.BILINEAR, box=box)
    if random.random() < 0.5:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    for kind in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
        image = kind(image).enhance(random.uniform(0.7, 1.3))
    return image


def read_clips(folder: Path) -> list[Clip]:
    """The captioned clips of `folder/manifest.tsv` (columns `kind`, which is "normal" for these, `file`, `caption`)."""
    with (folder / "manifest.tsv").open(encoding="utf-8") as table:
        rows = [row for row in csv.DictReader(table, delimiter="\t", quoting=csv.QUOTE_NONE) if row["kind"] == "normal"]
    return [Clip(caption=row["caption"], frames=_one_frame_a_second(folder / row["file"])) for row in rows]


def _one_frame_a_second(path: Path) -> Pixels:
    """The first frame at or after 0.5 s, 1.5 s, ... (or the last, if there is none), squashed to the square."""
    kept: list[av.VideoFrame] = []
    next_s = 0.5
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        for last in container.decode(stream):
            time_s = last.time - float((stream.start_time or 0) * (stream.time_base or 0))
            if time_s >= next_s:
                kept.append(last)
                next_s = int(time_s - 0.5) + 1.5
    return np.stack([f.to_ndarray(format="rgb24", width=SIDE_PX, height=SIDE_PX) for f in kept or [last]]).astype(
        np.uint8
    )
