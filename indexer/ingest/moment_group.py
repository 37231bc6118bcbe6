"""Consecutive moments of a video that get their vectors together: frames in, rows of moments out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from indexer import schema
from indexer.ingest.frame_model import FrameModel
from indexer.ingest.fuse import STORED, fuse_moments
from indexer.ingest.sampled import SampledFrame
from indexer.ingest.segments import cut_segments
from indexer.ingest.transcripts import Cue, text_between
from indexer.ingest.twins import TwinFinder
from indexer.phases import Stopwatch


class MomentGroup:
    """What is kept of the frames that were looked at: no pixels; of each moment features, perhaps on their way, and one
    thumbnail.

    Args:
        model: encodes frames and fuses moments.
    """

    def __init__(self, model: FrameModel) -> None:
        self._model = model
        self._target_times_s: list[float] = []
        self._frame_times_s: list[float] = []
        self._features: list[Callable[[], np.ndarray]] = []
        self._thumbnails: list[bytes | None] = []
        self._encoded: list[tuple[Callable[[], np.ndarray], int]] = []  # each frame the model was shown
        self._twins = TwinFinder()

    @property
    def is_empty(self) -> bool:
        return not self._thumbnails

    def add(self, frames: Sequence[SampledFrame]) -> int:
        """Encodes what is new among the frames of one moment, the next one, and says how many that are."""
        which, new = self._without_twins(frames)
        if new:
            encoded = self._model.encode_frames(np.stack(new))
            self._encoded += [(encoded, i) for i in range(len(new))]
        sources = [self._encoded[number] for number in which]
        self._features.append(lambda: np.stack([encoded()[i] for encoded, i in sources]).astype(STORED))
        self._target_times_s += [frame.target_s for frame in frames]
        self._frame_times_s += [frame.time_s for frame in frames]
        self._thumbnails.append(frames[-1].thumbnail)
        return len(new)

    def _without_twins(self, frames: Sequence[SampledFrame]) -> tuple[list[int], list[np.ndarray]]:
        """For each frame the number of the one whose features it takes; and the pixels of those that are new, numbered
        on from those encoded. A frame shown for several targets is one object and looked at once."""
        which: list[int] = []
        new: list[np.ndarray] = []
        for i, frame in enumerate(frames):
            if i and frame.pixels is frames[i - 1].pixels:
                which.append(which[-1])
                continue
            number = len(self._encoded) + len(new)
            which.append(self._twins.twin_of(number, frame.pixels))
            if which[-1] == number:
                new.append(frame.pixels)
        return which, new

    def rows(
        self, watch: Stopwatch, *, uri: str, batch_id: str, duration_s: float, length_s: float, cues: Sequence[Cue]
    ) -> list[dict[str, Any]]:
        """Rows of `schema.SEGMENTS`.

        Args:
            watch: counts what is waited for features, and the fusion.
            uri, batch_id: of the video.
            duration_s: where the video ends; infinity if it goes on.
            length_s: of a moment.
            cues: what is said in the video.
        """
        spans = cut_segments(self._target_times_s, duration_s, length_s)
        transcripts = [text_between(cues, span.start_s, span.end_s) for span in spans]
        with watch.phase("encode"):
            encoded = [features() for features in self._features]
        times_s = [np.array(self._frame_times_s[span.frames]) - span.start_s for span in spans]
        with watch.phase("fuse"):
            fused = fuse_moments(self._model, encoded, times_s, transcripts)
        return [
            {
                "segment_id": schema.segment_id(uri, span.start_s),
                "video_id": schema.video_id(uri),
                "batch_id": batch_id,
                "start_s": span.start_s,
                "end_s": span.end_s,
                "transcript": transcripts[i],
                "thumbnail": thumbnail,
                "num_frames": span.frames.stop - span.frames.start,
                "frame_times_s": self._frame_times_s[span.frames],
                "frame_features": encoded[i].tobytes(),
                **fused[i],
            }
            for i, (span, thumbnail) in enumerate(zip(spans, self._thumbnails, strict=True))
        ]
