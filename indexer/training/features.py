"""Images and videos to frame features: decoded once, then taken from the cache."""

from __future__ import annotations

import hashlib
import io
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from indexer.errors import VideoError
from indexer.ingest.files import fingerprint_file
from indexer.ingest.guard import GuardedDecoder
from indexer.ingest.paths import is_video_name, read_error
from indexer.ingest.video import SampledFrame
from indexer.training.feature_cache import FeatureCache, Features
from indexer.training.records import Problem, Record
from model.video_text_model import VideoTextModel

_FRAME_RATE_HZ = 1.0
_IMAGES_AT_ONCE = 64
_DECODING_THREADS = 2


@dataclass(frozen=True, kw_only=True)
class Looked:
    """Records whose features are in the cache, and what was wrong with the others.

    Attributes:
        records: those that can be trained on.
        keys: of each record, in the cache: records of the same bytes have the same.
        problems: the others.
    """

    records: list[Record]
    keys: list[str]
    problems: list[Problem]


def look_at_all(
    records: Sequence[Record],
    model: VideoTextModel,
    cache: FeatureCache,
    max_frames: int,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Looked:
    """Makes sure that the features of every record are in the cache.

    Args:
        records: images and videos.
        model: what makes features.
        cache: where they are kept.
        max_frames: of a video; from a longer one, frames spread over all of it are taken.
        on_progress: called with records done and in all.
    """
    looked = Looked(records=[], keys=[], problems=[])
    with GuardedDecoder() as decoder, ThreadPoolExecutor(_DECODING_THREADS) as pool:
        for start in range(0, len(records), _IMAGES_AT_ONCE):
            batch = records[start : start + _IMAGES_AT_ONCE]
            waiting = [_fingerprint(record) for record in batch]  # in order: a table is read group by group
            pictures = pool.map(partial(_picture, cache=cache, side_px=model.frame_size_px), batch, waiting)
            images: dict[str, np.ndarray] = {}
            for record, found, picture in zip(batch, waiting, pictures, strict=True):
                key = found[0]
                try:
                    if isinstance(picture, Problem):
                        raise VideoError("decode", "Unreadable", picture.reason)
                    if picture is not None:
                        images[key] = picture
                    elif key not in cache and key not in images:
                        cache.add(key, _features_of_video(record, model, decoder, max_frames))
                except VideoError as error:
                    looked.problems.append(Problem(name=record.name, reason=error.message))
                    continue
                looked.records.append(record)
                looked.keys.append(key)
            _add_images(images, model, cache)
            on_progress(min(start + _IMAGES_AT_ONCE, len(records)), len(records))
    cache.flush()
    return looked


def _fingerprint(record: Record) -> tuple[str, bytes | str]:
    """Key of a record, and the bytes of its image; or "" and what is wrong."""
    try:
        if record.read is None and is_video_name(record.path):
            return fingerprint_file(record.path), b""
        data = record.read() if record.read is not None else Path(record.path).read_bytes()
    except VideoError as error:
        return "", error.message
    except OSError as error:
        return "", read_error(error).message
    return f"blake2b:{hashlib.blake2b(data, digest_size=16).hexdigest()}", data


def _picture(
    record: Record, found: tuple[str, bytes | str], *, cache: FeatureCache, side_px: int
) -> np.ndarray | Problem | None:
    """Pixels of an image that is not in the cache; None where there is nothing to decode here."""
    key, data = found
    if isinstance(data, str):
        return Problem(name=record.name, reason=data)
    if key in cache or (record.read is None and is_video_name(record.path)):
        return None
    try:
        return decode_image(data, side_px)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        known = not isinstance(error, UnidentifiedImageError)
        reason = (" ".join(str(error).split())[:120] if known else "it is none") if data else "it is empty"
        return Problem(name=record.name, reason=f"the image cannot be read: {reason}")


def decode_image(data: bytes, side_px: int) -> np.ndarray:
    """An image, upright, squashed to a square: uint8 [side, side, 3] in RGB.

    Raises:
        OSError, ValueError, SyntaxError, DecompressionBombError: what Pillow says of bytes that are no image.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        with Image.open(io.BytesIO(data)) as file:
            file.draft("RGB", (2 * side_px, 2 * side_px))  # JPEG: decode no larger than needed
            image = ImageOps.exif_transpose(file).convert("RGB")
    return np.asarray(image.resize((side_px, side_px), Image.Resampling.BICUBIC))


def _features_of_video(record: Record, model: VideoTextModel, decoder: GuardedDecoder, max_frames: int) -> Features:
    stream = decoder.read_video(record.path, frame_rate_hz=_FRAME_RATE_HZ, size_px=model.frame_size_px)
    frames = spread((item for item in stream if isinstance(item, SampledFrame)), max_frames)
    if not frames:
        raise VideoError("decode", "NoFrames", "no frame could be decoded")
    values = model.encode_frames(np.stack([frame.pixels for frame in frames])).cpu().numpy().astype(np.float16)
    return Features(values, np.array([frame.time_s for frame in frames], np.float32))


def spread(frames: Iterator[SampledFrame], most: int) -> list[SampledFrame]:
    """At most so many of the frames, evenly spread, holding never more than one more in memory."""
    kept: list[SampledFrame] = []
    stride = 1
    for number, frame in enumerate(frames):
        if number % stride == 0:
            kept.append(frame)
        if len(kept) > most:
            kept, stride = kept[::2], 2 * stride
    return kept


def _add_images(images: dict[str, np.ndarray], model: VideoTextModel, cache: FeatureCache) -> None:
    if images:
        values = model.encode_frames(np.stack(list(images.values()))).cpu().numpy().astype(np.float16)
        for key, value in zip(images, values, strict=True):
            cache.add(key, Features(value[None], np.zeros(1, np.float32)))
