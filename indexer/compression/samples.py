"""Pictures with captions, to calibrate a compressed model on and to measure it with.

Shapes: T frames, S = side of a frame in pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from indexer.errors import UsageError, VideoError
from indexer.ingest.guard import GuardedDecoder
from indexer.ingest.paths import is_video_name
from indexer.ingest.video import SampledFrame
from indexer.training.features import decode_image, spread
from indexer.training.records import CAPTIONS, Problem, Record, read_collection

MOST_CALIBRATED, MOST_MEASURED = 64, 1000
_FEWEST_RECORDS = 16
_MOST_FRAMES = 4
_FRAME_RATE_HZ = 1.0


class Sample(NamedTuple):
    """One image or video.

    Attributes:
        frames: uint8 [T, S, S, 3].
        times_s: float32 [T].
        captions: none, where the data has classes.
    """

    frames: np.ndarray
    times_s: np.ndarray
    captions: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Data:
    """What a user gave, in two parts that share nothing.

    Attributes:
        calibration: at most 64 records, and a quarter of all.
        measured: at most 1,000 others.
        has_captions: so that recall can be measured.
    """

    calibration: list[Record]
    measured: list[Record]
    has_captions: bool


def read_data(path: str) -> Data:
    """Records in an order that depends on their number alone.

    Args:
        path: as `videobert train` takes it: a table with captions or labels, or a folder with one folder a class.

    Raises:
        UsageError: as `read_collection`, or there are fewer than 16.
    """
    collection = read_collection(path)
    num = len(collection.records)
    if num < _FEWEST_RECORDS:
        raise UsageError(f"the data must hold at least {_FEWEST_RECORDS} images or videos, {path!r} has {num}")
    shuffled = [collection.records[i] for i in np.random.default_rng(0).permutation(num)]
    num_calibrated = min(MOST_CALIBRATED, num // 4)
    return Data(
        calibration=shuffled[:num_calibrated],
        measured=shuffled[num_calibrated : num_calibrated + MOST_MEASURED],
        has_captions=collection.task == CAPTIONS,
    )


def read_samples(
    records: Sequence[Record], side_px: int, has_captions: bool, on_problem: Callable[[Problem], None]
) -> Iterator[Sample]:
    """Decode them one by one: of a video, at most four frames. Those that cannot be read are reported and left out."""
    with GuardedDecoder() as decoder:
        for record in records:
            try:
                frames, times_s = _frames(record, side_px, decoder)
            except (OSError, ValueError, SyntaxError) as error:
                on_problem(Problem(name=record.name, reason=" ".join(str(error).split())[:120]))
            except VideoError as error:
                on_problem(Problem(name=record.name, reason=error.message))
            else:
                yield Sample(frames, times_s, record.texts if has_captions else ())


def _frames(record: Record, side_px: int, decoder: GuardedDecoder) -> tuple[np.ndarray, np.ndarray]:
    if record.read is None and is_video_name(record.path):
        stream = decoder.read_video(record.path, frame_rate_hz=_FRAME_RATE_HZ, size_px=side_px)
        kept = spread((item for item in stream if isinstance(item, SampledFrame)), _MOST_FRAMES)
        if not kept:
            raise VideoError("decode", "NoFrames", "no frame could be decoded")
        return np.stack([frame.pixels for frame in kept]), np.array([frame.time_s for frame in kept], np.float32)
    if record.read is not None:
        data = record.read()
    else:
        with open(record.path, "rb") as file:
            data = file.read()
    return decode_image(data, side_px)[None], np.zeros(1, np.float32)
