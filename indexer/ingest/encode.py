"""One video in, its ledger row and its moments out. A plain class: no Ray, no storage."""

from __future__ import annotations

import datetime
import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from indexer import schema
from indexer.config import SamplingConfig
from indexer.errors import VideoError
from indexer.ingest.files import VideoFile, fingerprint_file, version_of
from indexer.ingest.segments import cut_segments, window_of
from indexer.ingest.transcripts import read_sidecar, text_between
from indexer.ingest.video import DecodeEnd, SampledFrame, VideoInfo

if TYPE_CHECKING:
    from model.video_text_model import VideoTextModel

_NUM_LABELS = 5
_MIN_LABEL_SCORE = 0.02
# Features are stored, and used, as little-endian float16.
STORED = np.dtype("<f2")
# Standard deviation of the pixels (0 to 255) below which a frame shows next to nothing.
_BLANK_STD = 12.0
_VIDEO_FACTS = ("container", "video_codec", "width", "height", "fps", "rotation_deg", "has_audio", "title")


class Decoder(Protocol):
    """What `GuardedDecoder` offers: the stream of `indexer.ingest.video.read_video`."""

    def read_video(
        self, path: str, *, frame_rate_hz: float, size_px: int
    ) -> Iterator[VideoInfo | SampledFrame | DecodeEnd]: ...


@dataclass(frozen=True, kw_only=True)
class EncodedVideo:
    """What became of one video.

    Attributes:
        video: a row of `schema.VIDEOS`.
        segments: rows of `schema.SEGMENTS`; empty when it failed or was found unchanged.
        unchanged: the bytes are those of `known_fingerprint`; nothing was encoded and `video` is not to be committed.
    """

    video: dict[str, Any]
    segments: list[dict[str, Any]]
    unchanged: bool = False


@dataclass
class _Sampled:
    """What is kept of the frames that were looked at: no pixels, one thumbnail a moment."""

    target_times_s: list[float] = field(default_factory=list)
    frame_times_s: list[float] = field(default_factory=list)
    features: list[np.ndarray] = field(default_factory=list)
    thumbnails: list[bytes | None] = field(default_factory=list)


class VideoEncoder:
    """Decodes, encodes and cuts videos, one at a time.

    Args:
        model: see `model.load_model`.
        decoder: where frames come from.
        sampling: which frames, and how long a moment is.
    """

    def __init__(self, model: VideoTextModel, decoder: Decoder, sampling: SamplingConfig) -> None:
        self._model = model
        self._decoder = decoder
        self._sampling = sampling

    def encode(
        self, file: VideoFile, batch_id: str, *, attempts: int = 1, known_fingerprint: str | None = None
    ) -> EncodedVideo:
        """Encodes a video. Never raises for a fault of the video: that becomes a failed row.

        Args:
            file: the video as listed.
            batch_id: the batch that the rows belong to.
            attempts: how many runs have tried this version of the file, this one included.
            known_fingerprint: content that the index already holds for this video.
        """
        before = version_of(file.path)
        encoded = self._encode_as_it_is(file, batch_id, attempts, known_fingerprint)
        if encoded.unchanged or before is None or (after := version_of(file.path)) == before:
            return encoded
        return EncodedVideo(video=_changed_row(file, attempts, is_gone=after is None), segments=[])

    def _encode_as_it_is(
        self, file: VideoFile, batch_id: str, attempts: int, known_fingerprint: str | None
    ) -> EncodedVideo:
        row = empty_row(file.uri, size_bytes=file.size_bytes, mtime_ns=file.mtime_ns, attempts=attempts)
        try:
            row["fingerprint"] = fingerprint_file(file.path)
            if row["fingerprint"] == known_fingerprint:
                return EncodedVideo(video=row, segments=[], unchanged=True)
            segments = self._encode(file, batch_id, row)
        except VideoError as error:
            return EncodedVideo(video=row | failure(error.stage, error.kind, error.message), segments=[])
        except Exception as error:  # the one per-video boundary: whatever else goes wrong is this video's failure
            message = f"unexpected {type(error).__name__}: {' '.join(str(error).split())[:300]}"
            return EncodedVideo(video=row | failure("encode", type(error).__name__, message), segments=[])
        row |= {"status": schema.INDEXED, "batch_id": batch_id, "num_segments": len(segments)}
        return EncodedVideo(video=row, segments=segments)

    def _encode(self, file: VideoFile, batch_id: str, row: dict[str, Any]) -> list[dict[str, Any]]:
        stream = self._decoder.read_video(
            file.path, frame_rate_hz=self._sampling.frame_rate_hz, size_px=self._model.frame_size_px
        )
        sampled = _Sampled()
        length_s = self._sampling.segment_length_s
        for _, frames in itertools.groupby(
            _note_facts(stream, row), key=lambda frame: window_of(frame.target_s, length_s)
        ):
            self._look_at(list(frames), sampled)
        row["num_frames"] = len(sampled.frame_times_s)
        return self._segments(file, batch_id, sampled, row["duration_s"])

    def _look_at(self, frames: list[SampledFrame], sampled: _Sampled) -> None:
        """Encodes the frames of one moment. A frame shown for several targets is one object and encoded once."""
        first_seen = {id(frame.pixels): i for i, frame in reversed(list(enumerate(frames)))}
        unique = sorted(first_seen.values())
        features = self._model.encode_frames(np.stack([frames[i].pixels for i in unique])).cpu().numpy().astype(STORED)
        for frame in frames:
            sampled.target_times_s.append(frame.target_s)
            sampled.frame_times_s.append(frame.time_s)
            sampled.features.append(features[unique.index(first_seen[id(frame.pixels)])])
        sampled.thumbnails.append(_best_thumbnail(frames))

    def _segments(self, file: VideoFile, batch_id: str, sampled: _Sampled, duration_s: float) -> list[dict[str, Any]]:
        spans = cut_segments(sampled.target_times_s, duration_s, self._sampling.segment_length_s)
        cues = read_sidecar(file.path)
        transcripts = [text_between(cues, span.start_s, span.end_s) for span in spans]
        features, mask, times = pad_frames(
            [np.stack(sampled.features[span.frames]) for span in spans],
            [np.array(sampled.frame_times_s[span.frames]) - span.start_s for span in spans],
        )
        embeddings = self._model.encode_video(features, mask, times, transcripts).cpu().numpy()
        probabilities = self._model.classify(features, mask).cpu().numpy()
        return [
            {
                "segment_id": schema.segment_id(file.uri, span.start_s),
                "video_id": schema.video_id(file.uri),
                "batch_id": batch_id,
                "start_s": span.start_s,
                "end_s": span.end_s,
                "embedding": embeddings[i],
                "labels": labels_seen(probabilities[i], self._model.label_names),
                "transcript": transcripts[i],
                "thumbnail": thumbnail,
                "num_frames": span.frames.stop - span.frames.start,
                "frame_times_s": sampled.frame_times_s[span.frames],
                "frame_features": np.stack(sampled.features[span.frames]).tobytes(),
            }
            for i, (span, thumbnail) in enumerate(zip(spans, sampled.thumbnails, strict=True))
        ]


def labels_seen(probabilities: np.ndarray, names: Sequence[str]) -> list[dict[str, Any]]:
    """The few most probable of C classes as `schema.LABELS_TYPE` holds them: float [C] and C names."""
    best = np.argsort(-probabilities, kind="stable")[:_NUM_LABELS]
    return [{"label": names[c], "score": float(probabilities[c])} for c in best if probabilities[c] >= _MIN_LABEL_SCORE]


def _note_facts(stream: Iterable[VideoInfo | SampledFrame | DecodeEnd], row: dict[str, Any]) -> Iterator[SampledFrame]:
    """Passes the frames on, and writes what the stream says of the video into its ledger row."""
    for item in stream:
        if isinstance(item, SampledFrame):
            yield item
        elif isinstance(item, VideoInfo):
            row |= {name: getattr(item, name) for name in _VIDEO_FACTS}
        else:
            row |= {"duration_s": item.duration_s, "partial": item.warning is not None, "warning": item.warning}


def _best_thumbnail(frames: list[SampledFrame]) -> bytes | None:
    """The frame nearest the middle that is not nearly of one colour (black, faded), else the one in the middle."""
    middle = (len(frames) - 1) / 2
    nearest = sorted(range(len(frames)), key=lambda i: abs(i - middle))
    clear = (i for i in nearest if frames[i].pixels.std() > _BLANK_STD)
    return frames[next(clear, nearest[0])].thumbnail


def pad_frames(
    features: Sequence[np.ndarray], times_s: Sequence[np.ndarray]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Moments of different lengths as one batch for `VideoBert.encode_video`.

    Args:
        features: of each moment [T, K, D], as stored.
        times_s: of each moment [T], seconds from its start.

    Returns:
        Features float32 [B, T, K, D], mask bool [B, T] and times float32 [B, T], T being that of the longest.
    """
    longest = max(len(frames) for frames in features)
    padded = np.zeros((len(features), longest, *features[0].shape[1:]), dtype=np.float32)
    mask = np.zeros((len(features), longest), dtype=bool)
    times = np.zeros((len(features), longest), dtype=np.float32)
    for i, (frames, at_s) in enumerate(zip(features, times_s, strict=True)):
        padded[i, : len(frames)] = frames
        mask[i, : len(frames)] = True
        times[i, : len(frames)] = at_s
    return padded, mask, times


def empty_row(uri: str, *, size_bytes: int = 0, mtime_ns: int = 0, attempts: int = 1) -> dict[str, Any]:
    """A ledger row with nothing known yet but what was listed."""
    row: dict[str, Any] = dict.fromkeys(schema.VIDEOS.names)
    return row | {
        "video_id": schema.video_id(uri),
        "uri": uri,
        "batch_id": "",
        "size_bytes": size_bytes,
        "mtime_ns": mtime_ns,
        "num_segments": 0,
        "num_frames": 0,
        "partial": False,
        "attempts": attempts,
        "indexed_at": datetime.datetime.now(datetime.UTC),
    }


def _changed_row(file: VideoFile, attempts: int, *, is_gone: bool) -> dict[str, Any]:
    """The row of a file that was written to while it was read. Without its size and time: the next run tries again."""
    did = "deleted" if is_gone else "changed"
    message = f"the file was {did} while it was read; what was read is left out, the next run reads it anew"
    return empty_row(file.uri, attempts=attempts) | failure("read", "ChangedWhileRead", message)


def failure(stage: str, kind: str, message: str) -> dict[str, Any]:
    """What a failed video's ledger row says besides `empty_row`."""
    return {
        "status": schema.FAILED,
        "num_frames": 0,
        "partial": False,
        "error_stage": stage,
        "error_kind": kind,
        "error_message": message,
    }
