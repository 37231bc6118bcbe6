"""Carry out what `needed.py` asks for: feed packets to the decoder, find the wanted frames by their timestamps."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Iterator

import av.error
from av.packet import Packet
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame

from indexer.ingest.coded import NotOrdinaryError, Step
from indexer.ingest.opened import OpenedVideo
from indexer.ingest.sampled import KEY_FRAMES, LINEAR, SPARSE, SampledFrame, VideoInfo

_MAX_REORDERED = 32  # frames; a decoder holds back at most 16
# Codecs whose unreferenced pictures nothing at all refers to.
_SKIPS_UNREFERENCED = ("h264", "mpeg2video", "mpeg1video")


class StepDecoder:
    """Carries out steps. Gives the frames that are wanted, in order of time, and once the facts of the file.

    Attributes:
        has_enough: the limit of sampled frames has been reached; there will be no more.
    """

    def __init__(self, video: OpenedVideo) -> None:
        self.has_enough = False
        self._num_kept = 0
        self._video = video
        self._context = video.stream.codec_context
        self._may_skip = _has_skippable_frames(self._context)
        self._num_fed = self._num_keys_fed = 0
        self._is_empty = True
        self._gave_info = False
        self._last_pts: int | None = None
        self._expected: deque[Step[Packet]] = deque()  # in order of time
        self._expected_pts: set[int] = set()
        self._ready: dict[int, VideoFrame] = {}  # by PTS, those that came before one that is shown earlier

    def run(self, steps: list[Step[Packet]]) -> Iterator[VideoInfo | SampledFrame]:
        """Carries out what one call of `NeededPackets` gave; what came from an earlier one is shown earlier."""
        expected = sorted((step for step in steps if step.targets), key=lambda step: step.coded.time_s)
        self._expected += expected
        self._expected_pts |= {_pts(step) for step in expected}
        for step in steps:
            if step.restart:
                yield from self.drain()
            if frames := self._decode(step):
                yield from self._take(frames)

    def drain(self) -> Iterator[VideoInfo | SampledFrame]:
        """What the decoder still holds. It can start with a key frame afterwards."""
        if self._is_empty:
            return
        with contextlib.suppress(av.error.EOFError):
            yield from self._take(self._context.decode(None))
        self._context.flush_buffers()
        self._is_empty = True
        self._last_pts = None
        if self._ready:
            raise NotOrdinaryError("a frame did not come out of the decoder")

    def _decode(self, step: Step[Packet]) -> list[VideoFrame]:
        self._num_fed += 1
        self._num_keys_fed += step.coded.is_key
        self._is_empty = False
        self._video.on_packet()
        if step.coded.packet.has_sidedata("encryption_info"):
            raise NotOrdinaryError("the video is encrypted")
        if self._may_skip:
            self._context.skip_frame = "DEFAULT" if step.targets else "NONREF"
        try:
            return step.coded.packet.decode()
        except av.error.FFmpegError as error:
            if not step.is_leading:
                raise NotOrdinaryError("damaged data") from error
            return []

    @property
    def is_missing_frames(self) -> bool:
        """Whether a frame that is wanted has not come, of all that were given to be decoded."""
        return bool(self._expected)

    def plan(self, num_coded: int | None) -> str:
        """See `DecodeEnd.plan`."""
        if num_coded is not None and self._num_fed >= num_coded:
            return LINEAR
        return KEY_FRAMES if self._num_fed == self._num_keys_fed else SPARSE

    def _take(self, frames: list[VideoFrame]) -> Iterator[VideoInfo | SampledFrame]:
        for frame in frames:
            self._video.count(frame)
            if frame.pts is None or (self._last_pts is not None and frame.pts <= self._last_pts):
                raise NotOrdinaryError("the decoder gives timestamps out of order")
            self._last_pts = frame.pts
            if not self._gave_info:
                self._gave_info = True
                yield self._video.info(frame)
            if frame.pts in self._expected_pts:
                self._ready[frame.pts] = frame
            while self._expected and _pts(self._expected[0]) in self._ready:
                step = self._expected.popleft()
                self._expected_pts.discard(_pts(step))
                yield from self._sampled(step, self._ready.pop(_pts(step)))
            if len(self._ready) > _MAX_REORDERED:
                raise NotOrdinaryError("a frame did not come out of the decoder")

    def _sampled(self, step: Step[Packet], frame: VideoFrame) -> Iterator[SampledFrame]:
        if frame.is_corrupt:
            raise NotOrdinaryError("a damaged frame")
        if not self.has_enough:
            kept = list(self._video.sampled(frame, max(0.0, step.coded.time_s), step.targets))
            self._num_kept += len(kept)
            self.has_enough = self._video.has_enough(self._num_kept)
            yield from kept


def _has_skippable_frames(context: VideoCodecContext) -> bool:
    """Whether frames that are marked as unreferenced may be left out.

    In HEVC, frames of a higher temporal layer may refer to them all the same, so there must be one layer only: bits 3
    to 5 of byte 21 of the decoder's configuration record (ISO/IEC 14496-15, 8.3.3.1). MP4 and Matroska have it.
    """
    if context.codec.canonical_name != "hevc":
        return context.codec.canonical_name in _SKIPS_UNREFERENCED
    record = context.extradata or b""
    return len(record) > 22 and record[0] == 1 and record[21] >> 3 & 7 == 1


def _pts(step: Step[Packet]) -> int:
    assert step.coded.packet.pts is not None
    return step.coded.packet.pts
