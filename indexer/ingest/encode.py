"""One video in, its ledger row and its moments out. A plain class: no Ray, no storage."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, Unpack

from indexer import schema
from indexer.config import SamplingConfig
from indexer.errors import VideoError
from indexer.ingest.files import VideoFile, fingerprint_file, version_of
from indexer.ingest.frame_model import FrameModel, LocalModel
from indexer.ingest.leeway import leeway_of
from indexer.ingest.moment_group import MomentGroup
from indexer.ingest.sampled import DecodeEnd, SampledFrame, VideoInfo
from indexer.ingest.segments import window_of
from indexer.ingest.transcripts import read_transcript
from indexer.ingest.video_rows import changed_row, empty_row, facts_of, failure
from indexer.ingest.wanted import WantedFrames
from indexer.phases import Stopwatch

if TYPE_CHECKING:
    from model.video_text_model import VideoTextModel

# Moments that are held before their vectors are computed, all together. Always those of the same 300 s (at 10 s), so
# that a video read in ranges gives the same vectors to the last bit.
MOMENTS_AT_ONCE = 30


class Decoder(Protocol):
    """What `GuardedDecoder` offers: the stream of `indexer.ingest.video.read_video`."""

    def read_video(
        self, path: str, **wanted: Unpack[WantedFrames]
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
        self._waiter = ThreadPoolExecutor(max_workers=1) if self._model.is_elsewhere else None

    def encode(self, file: VideoFile, batch_id: str, **how: Any) -> EncodedVideo:
        """`begin`, and the end at once."""
        return self.begin(file, batch_id, **how)()

    def begin(
        self,
        file: VideoFile,
        batch_id: str,
        *,
        attempts: int = 1,
        known_fingerprint: str | None = None,
        start_s: float = 0.0,
        end_s: float | None = None,
        on_segments: Callable[[list[dict[str, Any]]], None] | None = None,
    ) -> Callable[[], EncodedVideo]:
        """Decodes a video and has its frames encoded. Never raises for a fault of the video: that becomes a failed row.

        Args:
            file: the video as listed.
            batch_id: the batch that the rows belong to.
            attempts: how many runs have tried this version of the file, this one included.
            known_fingerprint: content that the index already holds for this video.
            start_s, end_s: only the moments in [start_s, end_s), multiples of the segment length; None: up to the end.
            on_segments: takes rows of moments as they are made, so that a video of any length needs little memory. They
                count only if the video is indexed in the end. None: they are returned.

        Returns:
            What waits for the last features, which another process may still be computing, and makes the last rows. The
            next video may begin before it is called.
        """
        before = version_of(file.path)
        segments: list[dict[str, Any]] = []
        row = empty_row(file.uri, size_bytes=file.size_bytes, mtime_ns=file.mtime_ns, attempts=attempts)
        finish = self._begin_as_it_is(
            file, batch_id, row, (start_s, end_s), known_fingerprint, on_segments or segments.extend
        )
        after = version_of(file.path)

        def finish_if_unchanged() -> EncodedVideo:
            encoded = finish()
            if encoded.video["status"] == schema.INDEXED:
                encoded = replace(encoded, segments=segments)
            if encoded.unchanged or before is None or after == before:
                return encoded
            return EncodedVideo(video=changed_row(file.uri, attempts, is_gone=after is None), segments=[])

        return finish_if_unchanged

    def _begin_as_it_is(
        self,
        file: VideoFile,
        batch_id: str,
        row: dict[str, Any],
        span: tuple[float, float | None],
        known_fingerprint: str | None,
        on_segments: Callable[[list[dict[str, Any]]], None],
    ) -> Callable[[], EncodedVideo]:
        def emit(make_rows: Callable[[], list[dict[str, Any]]]) -> None:
            segments = make_rows()
            row["num_segments"] += len(segments)
            on_segments(segments)

        def finish() -> EncodedVideo:
            try:
                if last is not None:
                    emit(last)
            except Exception as error:
                return _failed(row, error)
            row.update(status=schema.INDEXED, batch_id=batch_id)
            return EncodedVideo(video=row, segments=[])

        last: Callable[[], list[dict[str, Any]]] | None = None
        try:
            if span[0] == 0:  # the first part speaks for all
                with self._watch.phase("open"):
                    row["fingerprint"] = fingerprint_file(file.path)
            if known_fingerprint and row["fingerprint"] == known_fingerprint:
                return lambda: EncodedVideo(video=row, segments=[], unchanged=True)
            for make_rows in self._groups(file, batch_id, row, span):
                if last is not None:
                    emit(last)
                last = make_rows
        except Exception as error:  # the one per-video boundary: whatever goes wrong is this video's failure
            failed = _failed(row, error)
            return lambda: failed
        return finish

    def _groups(
        self, file: VideoFile, batch_id: str, row: dict[str, Any], span: tuple[float, float | None]
    ) -> Iterator[Callable[[], list[dict[str, Any]]]]:
        """What makes the rows of `MOMENTS_AT_ONCE` moments at a time, as soon as these have been decoded."""
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
        moments, group = MomentGroup(self._model), 0
        length_s = self._sampling.segment_length_s
        rows_of = partial(MomentGroup.rows, uri=file.uri, batch_id=batch_id, length_s=length_s, cues=transcript.cues)
        timed = self._watch.waits(stream, first="open", rest="decode")
        for window, frames in itertools.groupby(
            self._note_facts(timed, row), key=lambda frame: window_of(frame.target_s, length_s)
        ):
            if window // MOMENTS_AT_ONCE != group and not moments.is_empty:
                yield self._ahead(partial(rows_of, moments, duration_s=math.inf))
                moments = MomentGroup(self._model)
            group = window // MOMENTS_AT_ONCE
            looked_at = list(frames)
            row["num_frames"] += len(looked_at)
            with self._watch.phase("encode"):
                row["num_encoded"] += moments.add(looked_at)
        if not moments.is_empty:
            yield self._ahead(partial(rows_of, moments, duration_s=row["duration_s"]))
        row |= {"subtitles": transcript.subtitles, "language": transcript.language(row["audio_language"])}

    def _ahead(self, make_rows: Callable[[Stopwatch], list[dict[str, Any]]]) -> Callable[[], list[dict[str, Any]]]:
        """Rows whose vectors another process computes are made by a thread, so that decoding goes on meanwhile."""
        if self._waiter is None:
            return partial(make_rows, self._watch)
        made = self._waiter.submit(make_rows, Stopwatch())

        def wait() -> list[dict[str, Any]]:
            with self._watch.phase("encode"):
                return made.result()

        return wait

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


def _failed(row: dict[str, Any], error: Exception) -> EncodedVideo:
    if isinstance(error, VideoError):
        return EncodedVideo(video=row | failure(error.stage, error.kind, error.message), segments=[])
    message = f"unexpected {type(error).__name__}: {' '.join(str(error).split())[:300]}"
    return EncodedVideo(video=row | failure("encode", type(error).__name__, message), segments=[])
