"""One video in, its ledger row and its moments out. A plain class: no Ray, no storage."""

from __future__ import annotations

import datetime
import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from indexer import schema
from indexer.config import SamplingConfig
from indexer.errors import VideoError
from indexer.ingest.files import VideoFile, fingerprint_file, version_of
from indexer.ingest.frame_model import FrameModel, LocalModel
from indexer.ingest.leeway import EXACTLY, Leeway, leeway_of
from indexer.ingest.sampled import SPARSE, DecodeEnd, SampledFrame, VideoInfo
from indexer.ingest.segments import cut_segments, window_of
from indexer.ingest.transcripts import Cue, read_transcript, text_between
from indexer.ingest.twins import TwinFinder
from indexer.phases import Stopwatch

if TYPE_CHECKING:
    from model.video_text_model import VideoTextModel

_NUM_LABELS = 5
_MIN_LABEL_SCORE = 0.02
# Moments that are held before their vectors are computed, all together. Always those of the same 300 s (at 10 s), so
# that a video read in ranges gives the same vectors to the last bit.
MOMENTS_AT_ONCE = 30
# Features are stored, and used, as little-endian float16.
STORED = np.dtype("<f2")
_VIDEO_FACTS = (
    "container",
    "video_codec",
    "width",
    "height",
    "fps",
    "rotation_deg",
    "has_audio",
    "title",
    "audio_language",
)


class Decoder(Protocol):
    """What `GuardedDecoder` offers: the stream of `indexer.ingest.video.read_video`."""

    def read_video(
        self,
        path: str,
        *,
        frame_rate_hz: float,
        size_px: int,
        start_s: float = 0.0,
        end_s: float | None = None,
        leeway: Leeway = EXACTLY,
        moment_s: float | None = None,
    ) -> Iterator[VideoInfo | SampledFrame | DecodeEnd]: ...


@dataclass(frozen=True, kw_only=True)
class EncodedVideo:
    """What became of one video.

    Attributes:
        video: a row of `schema.VIDEOS`.
        segments: rows of `schema.SEGMENTS`; empty when it failed or was found unchanged, or where they were passed on.
        unchanged: the bytes are those of `known_fingerprint`; nothing was encoded and `video` is not to be committed.
    """

    video: dict[str, Any]
    segments: list[dict[str, Any]]
    unchanged: bool = False


@dataclass
class _Sampled:
    """What is kept of the frames that were looked at: no pixels; of each moment features, perhaps on their way, and one
    thumbnail."""

    target_times_s: list[float] = field(default_factory=list)
    frame_times_s: list[float] = field(default_factory=list)
    features: list[Callable[[], np.ndarray]] = field(default_factory=list)
    thumbnails: list[bytes | None] = field(default_factory=list)
    encoded: list[tuple[Callable[[], np.ndarray], int]] = field(default_factory=list)  # each frame the model was shown
    twins: TwinFinder = field(default_factory=TwinFinder)


class VideoEncoder:
    """Decodes, encodes and cuts videos, one at a time.

    Args:
        model: see `model.load_model`; or what stands for one in another process.
        decoder: where frames come from.
        sampling: which frames, and how long a moment is.
        watch: counts what each phase takes.
    """

    def __init__(
        self,
        model: VideoTextModel | FrameModel,
        decoder: Decoder,
        sampling: SamplingConfig,
        watch: Stopwatch | None = None,
    ) -> None:
        self._model = model if isinstance(model, FrameModel) else LocalModel(model)
        self._decoder = decoder
        self._sampling = sampling
        self._watch = watch or Stopwatch()

    def encode(
        self,
        file: VideoFile,
        batch_id: str,
        *,
        attempts: int = 1,
        known_fingerprint: str | None = None,
        start_s: float = 0.0,
        end_s: float | None = None,
        on_segments: Callable[[list[dict[str, Any]]], None] | None = None,
    ) -> EncodedVideo:
        """Encodes a video. Never raises for a fault of the video: that becomes a failed row.

        Args:
            file: the video as listed.
            batch_id: the batch that the rows belong to.
            attempts: how many runs have tried this version of the file, this one included.
            known_fingerprint: content that the index already holds for this video.
            start_s, end_s: only the moments in [start_s, end_s), multiples of the segment length; None: up to the end.
            on_segments: takes rows of moments as they are made, so that a video of any length needs little memory. They
                count only if the video is indexed in the end. None: they are returned.
        """
        before = version_of(file.path)
        segments: list[dict[str, Any]] = []
        row = empty_row(file.uri, size_bytes=file.size_bytes, mtime_ns=file.mtime_ns, attempts=attempts)
        encoded = self._encode_as_it_is(
            file, batch_id, row, (start_s, end_s), known_fingerprint, on_segments or segments.extend
        )
        if encoded.video["status"] == schema.INDEXED:
            encoded = replace(encoded, segments=segments)
        if encoded.unchanged or before is None or (after := version_of(file.path)) == before:
            return encoded
        return EncodedVideo(video=changed_row(file.uri, attempts, is_gone=after is None), segments=[])

    def _encode_as_it_is(
        self,
        file: VideoFile,
        batch_id: str,
        row: dict[str, Any],
        span: tuple[float, float | None],
        known_fingerprint: str | None,
        on_segments: Callable[[list[dict[str, Any]]], None],
    ) -> EncodedVideo:
        try:
            if span[0] == 0:  # the first part speaks for all
                with self._watch.phase("open"):
                    row["fingerprint"] = fingerprint_file(file.path)
            if known_fingerprint and row["fingerprint"] == known_fingerprint:
                return EncodedVideo(video=row, segments=[], unchanged=True)
            for segments in self._encode(file, batch_id, row, span):
                row["num_segments"] += len(segments)
                on_segments(segments)
        except VideoError as error:
            return EncodedVideo(video=row | failure(error.stage, error.kind, error.message), segments=[])
        except Exception as error:  # the one per-video boundary: whatever else goes wrong is this video's failure
            message = f"unexpected {type(error).__name__}: {' '.join(str(error).split())[:300]}"
            return EncodedVideo(video=row | failure("encode", type(error).__name__, message), segments=[])
        row |= {"status": schema.INDEXED, "batch_id": batch_id}
        return EncodedVideo(video=row, segments=[])

    def _encode(
        self, file: VideoFile, batch_id: str, row: dict[str, Any], span: tuple[float, float | None]
    ) -> Iterator[list[dict[str, Any]]]:
        """The rows of `MOMENTS_AT_ONCE` moments at a time."""
        stream = self._decoder.read_video(
            file.path,
            frame_rate_hz=self._sampling.frame_rate_hz,
            size_px=self._model.frame_size_px,
            start_s=span[0],
            end_s=span[1],
            leeway=leeway_of(self._sampling),
            moment_s=self._sampling.segment_length_s,
        )
        transcript = read_transcript(file)
        row["num_encoded"] = 0
        sampled, group = _Sampled(), 0
        length_s = self._sampling.segment_length_s
        timed = self._watch.waits(stream, first="open", rest="decode")
        for window, frames in itertools.groupby(
            self._note_facts(timed, row), key=lambda frame: window_of(frame.target_s, length_s)
        ):
            if window // MOMENTS_AT_ONCE != group and sampled.thumbnails:
                yield self._segments(file, batch_id, sampled, math.inf, transcript.cues)
                sampled = _Sampled()
            group = window // MOMENTS_AT_ONCE
            looked_at = list(frames)
            row["num_frames"] += len(looked_at)
            row["num_encoded"] += self._look_at(looked_at, sampled)
        if sampled.thumbnails:
            yield self._segments(file, batch_id, sampled, row["duration_s"], transcript.cues)
        row |= {"subtitles": transcript.subtitles, "language": transcript.language(row["audio_language"])}

    def _note_facts(
        self, stream: Iterable[VideoInfo | SampledFrame | DecodeEnd], row: dict[str, Any]
    ) -> Iterator[SampledFrame]:
        """Passes the frames on, and writes what the stream says of the video into its ledger row."""
        for item in stream:
            if isinstance(item, SampledFrame):
                yield item
            elif isinstance(item, VideoInfo):
                row |= {name: getattr(item, name) for name in _VIDEO_FACTS}
            else:
                row |= {"duration_s": item.duration_s, "partial": item.warning is not None, "warning": item.warning}
                row |= {"sampling_plan": item.plan, "num_coded": item.num_coded, "num_decoded": item.num_decoded}
                self._watch.num_on_gpu += item.on_hardware
                self._watch.move(item.resize_s, source="decode", target="resize")

    def _look_at(self, frames: list[SampledFrame], sampled: _Sampled) -> int:
        """Encodes what is new among the frames of one moment, and says how many that are."""
        first_new = len(sampled.encoded)
        with self._watch.phase("encode"):
            which, new = _without_twins(frames, sampled.twins, first_new)
            if new:
                encoded = self._model.encode_frames(np.stack(new))
                sampled.encoded += [(encoded, i) for i in range(len(new))]
        sources = [sampled.encoded[number] for number in which]
        sampled.features.append(lambda: np.stack([encoded()[i] for encoded, i in sources]).astype(STORED))
        sampled.target_times_s += [frame.target_s for frame in frames]
        sampled.frame_times_s += [frame.time_s for frame in frames]
        sampled.thumbnails.append(frames[-1].thumbnail)
        return len(new)

    def _segments(
        self, file: VideoFile, batch_id: str, sampled: _Sampled, duration_s: float, cues: Sequence[Cue]
    ) -> list[dict[str, Any]]:
        spans = cut_segments(sampled.target_times_s, duration_s, self._sampling.segment_length_s)
        transcripts = [text_between(cues, span.start_s, span.end_s) for span in spans]
        with self._watch.phase("encode"):
            encoded = [features() for features in sampled.features]
        times_s = [np.array(sampled.frame_times_s[span.frames]) - span.start_s for span in spans]
        with self._watch.phase("fuse"):
            fused = fuse_moments(self._model, encoded, times_s, transcripts)
        return [
            {
                "segment_id": schema.segment_id(file.uri, span.start_s),
                "video_id": schema.video_id(file.uri),
                "batch_id": batch_id,
                "start_s": span.start_s,
                "end_s": span.end_s,
                "transcript": transcripts[i],
                "thumbnail": thumbnail,
                "num_frames": span.frames.stop - span.frames.start,
                "frame_times_s": sampled.frame_times_s[span.frames],
                "frame_features": encoded[i].tobytes(),
                **fused[i],
            }
            for i, (span, thumbnail) in enumerate(zip(spans, sampled.thumbnails, strict=True))
        ]


def fuse_moments(
    model: FrameModel, features: Sequence[np.ndarray], times_s: Sequence[np.ndarray], transcripts: Sequence[str | None]
) -> list[dict[str, Any]]:
    """What the rows of some moments get from the model: see `pad_frames`. Alike to the last bit for the same moments
    together."""
    embeddings, probabilities = model.fuse(*pad_frames(features, times_s), transcripts)
    return [
        {"embedding": vector, "labels": labels_seen(seen, model.label_names)}
        for vector, seen in zip(embeddings, probabilities, strict=True)
    ]


def labels_seen(probabilities: np.ndarray, names: Sequence[str]) -> list[dict[str, Any]]:
    """The few most probable of C classes as `schema.LABELS_TYPE` holds them: float [C] and C names."""
    best = np.argsort(-probabilities, kind="stable")[:_NUM_LABELS]
    return [{"label": names[c], "score": float(probabilities[c])} for c in best if probabilities[c] >= _MIN_LABEL_SCORE]


def _without_twins(
    frames: Sequence[SampledFrame], twins: TwinFinder, first_number: int
) -> tuple[list[int], list[np.ndarray]]:
    """For each frame the number of the one whose features it takes; and the pixels of those that are new, numbered from
    `first_number`. A frame shown for several targets is one object and looked at once."""
    which: list[int] = []
    new: list[np.ndarray] = []
    for i, frame in enumerate(frames):
        if i and frame.pixels is frames[i - 1].pixels:
            which.append(which[-1])
            continue
        number = first_number + len(new)
        which.append(twins.twin_of(number, frame.pixels))
        if which[-1] == number:
            new.append(frame.pixels)
    return which, new


def joined_facts(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """How a video was read, from the ledger rows of its parts."""
    plans = {row["sampling_plan"] for row in rows if row["num_frames"]}
    counts = {name: [row[name] for row in rows] for name in ("num_coded", "num_decoded", "num_encoded")}
    return {
        "sampling_plan": plans.pop() if len(plans) == 1 else SPARSE,
        **{name: None if None in values else sum(values) for name, values in counts.items()},
    }


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


def changed_row(uri: str, attempts: int, *, is_gone: bool) -> dict[str, Any]:
    """The row of a file that was written to while it was read. Without its size and time: the next run tries again."""
    did = "deleted" if is_gone else "changed"
    message = f"the file was {did} while it was read; what was read is left out, the next run reads it anew"
    return empty_row(uri, attempts=attempts) | failure("read", "ChangedWhileRead", message)


def failure(stage: str, kind: str, message: str) -> dict[str, Any]:
    """What a failed video's ledger row says besides `empty_row`."""
    return {
        "status": schema.FAILED,
        "num_segments": 0,
        "num_frames": 0,
        "partial": False,
        **dict.fromkeys(("sampling_plan", "num_coded", "num_decoded", "num_encoded")),
        "error_stage": stage,
        "error_kind": kind,
        "error_message": message,
    }
