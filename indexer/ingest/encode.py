"""One video in, its ledger row and its moments out. A plain class: no Ray, no storage."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

from indexer import schema
from indexer.config import SamplingConfig
from indexer.errors import VideoError
from indexer.ingest.files import VideoFile, fingerprint_file, version_of
from indexer.ingest.frame_model import FrameModel, LocalModel
from indexer.ingest.leeway import EXACTLY, Leeway, leeway_of
from indexer.ingest.moment_group import MomentGroup
from indexer.ingest.sampled import DecodeEnd, SampledFrame, VideoInfo
from indexer.ingest.segments import window_of
from indexer.ingest.transcripts import read_transcript
from indexer.ingest.video_rows import changed_row, empty_row, facts_of, failure
from indexer.phases import Stopwatch

if TYPE_CHECKING:
    from model.video_text_model import VideoTextModel

# Moments that are held before their vectors are computed, all together. Always those of the same 300 s (at 10 s), so
# that a video read in ranges gives the same vectors to the last bit.
MOMENTS_AT_ONCE = 30


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
        moments, group = MomentGroup(self._model, self._watch), 0
        length_s = self._sampling.segment_length_s
        timed = self._watch.waits(stream, first="open", rest="decode")
        for window, frames in itertools.groupby(
            self._note_facts(timed, row), key=lambda frame: window_of(frame.target_s, length_s)
        ):
            if window // MOMENTS_AT_ONCE != group and not moments.is_empty:
                yield moments.rows(file.uri, batch_id, duration_s=math.inf, length_s=length_s, cues=transcript.cues)
                moments = MomentGroup(self._model, self._watch)
            group = window // MOMENTS_AT_ONCE
            looked_at = list(frames)
            row["num_frames"] += len(looked_at)
            row["num_encoded"] += moments.add(looked_at)
        if not moments.is_empty:
            yield moments.rows(
                file.uri, batch_id, duration_s=row["duration_s"], length_s=length_s, cues=transcript.cues
            )
        row |= {"subtitles": transcript.subtitles, "language": transcript.language(row["audio_language"])}

    def _note_facts(
        self, stream: Iterable[VideoInfo | SampledFrame | DecodeEnd], row: dict[str, Any]
    ) -> Iterator[SampledFrame]:
        """Passes the frames on, and writes what the stream says of the video into its ledger row."""
        for item in stream:
            if isinstance(item, SampledFrame):
                yield item
                continue
            row |= facts_of(item)
            if isinstance(item, DecodeEnd):
                self._watch.num_on_gpu += item.on_hardware
                self._watch.move(item.resize_s, source="decode", target="resize")
