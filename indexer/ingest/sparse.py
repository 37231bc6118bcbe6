"""Read a video by decoding no more than the wanted frames need."""

from __future__ import annotations

import math
from collections.abc import Iterator

import av.error
from av.packet import Packet

from indexer.ingest.coded import Coded, NotOrdinaryError
from indexer.ingest.leeway import EXACTLY, Leeway
from indexer.ingest.needed import NeededPackets
from indexer.ingest.opened import OpenedVideo
from indexer.ingest.sampled import DecodeEnd, SampledFrame, VideoInfo
from indexer.ingest.step_decoder import StepDecoder
from indexer.ingest.timeline import MAX_HOLD_S, SamplingGrid

# Containers that list their key frames; Matroska's list is read with the first search.
_MP4, _MATROSKA = "mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm"
# Codecs whose decoders give each frame the time of its packet, and know their key frames.
_CODECS = frozenset(
    ("h264", "hevc", "av1", "vp9", "vp8", "mpeg4", "mpeg2video", "mpeg1video", "mjpeg", "prores", "ffv1", "gif")
)
_UNTIMED = ("avi",)  # containers without presentation times
# Reading on costs some 5 us a packet and the disk; a seek costs a little too, and what it reads twice.
_MIN_GAP_S = 10.0
_SEEK_MARGIN_S = 2.0  # a key frame is found by the time at which it is decoded, and shown a little later


def can_read_sparsely(video: OpenedVideo) -> bool:
    """Whether its packets may say when their frames are shown."""
    has_times = video.origin_s is not None and video.container.format.name not in _UNTIMED
    return has_times and video.stream.codec_context.codec.canonical_name in _CODECS


def read_sparsely(
    video: OpenedVideo, grid: SamplingGrid, leeway: Leeway = EXACTLY, moment_s: float | None = None, *, seek: bool
) -> Iterator[VideoInfo | SampledFrame | DecodeEnd]:
    """The stream of `video.read_video`.

    Args:
        leeway, moment_s: see `NeededPackets`.
        seek: whether to jump to key frames far ahead, where the container has a list of them.

    Raises:
        NotOrdinaryError: the file is not as it should be; what was given so far is right.
    """
    yield from _SparseReading(video, grid, NeededPackets(grid, leeway, moment_s), seek).read()


class _SparseReading:
    def __init__(self, video: OpenedVideo, grid: SamplingGrid, needed: NeededPackets[Packet], seek: bool) -> None:
        if video.origin_s is None or not can_read_sparsely(video):
            raise NotOrdinaryError("packets of this kind do not say when their frames are shown")
        self._video = video
        self._grid = grid
        self._origin_s = video.origin_s
        self._needed = needed
        self._decoder = StepDecoder(video)
        self._may_seek = seek and video.container.format.name in (_MP4, _MATROSKA)
        self._list_is_unread = video.container.format.name == _MATROSKA
        self._num_in_range: int | None = 0
        self._last_s = self._end_s = 0.0

    def read(self) -> Iterator[VideoInfo | SampledFrame | DecodeEnd]:
        yield from self._maybe_jump()
        for coded in self._packets():
            if coded.is_shown and self._video.is_too_late(coded.time_s):
                if self._video.is_too_late(coded.decode_s):
                    break
                continue
            self._count(coded)
            if steps := self._needed.push(coded):
                yield from self._decoder.run(steps)
            if self._needed.is_done or self._decoder.has_enough:
                break
            yield from self._maybe_jump()
        yield from self._decoder.run(self._needed.finish())
        yield from self._decoder.drain()
        if not self._video.num_decoded or self._decoder.is_missing_frames:
            raise NotOrdinaryError("a frame did not come out of the decoder")
        yield self._end()

    def _end(self) -> DecodeEnd:
        left_range = self._needed.is_done
        return DecodeEnd(
            duration_s=self._end_s,
            num_decoded=self._video.num_decoded,
            warning=self._video.warning(None if left_range else self._end_s),
            plan=self._decoder.plan(self._num_in_range),
            num_coded=self._num_in_range,
            on_hardware=self._video.on_hardware,
        )

    def _packets(self) -> Iterator[Coded[Packet]]:
        video = self._video
        try:
            for packet in video.container.demux():
                video.on_packet()
                if packet.stream.index != video.stream.index:
                    video.damage.note_other_stream(packet, self._origin_s)
                elif packet.size or packet.dts is not None:  # else it says that the file has ended
                    yield self._coded(packet)
        except av.error.FFmpegError as error:
            raise NotOrdinaryError("the container is damaged") from error

    def _coded(self, packet: Packet) -> Coded[Packet]:
        if packet.pts is None or not packet.size or packet.is_corrupt:
            raise NotOrdinaryError("a packet without timestamp, empty or cut off")
        video = self._video
        time_s = video.seconds(packet.pts) - self._origin_s
        decode_s = -math.inf if packet.dts is None else video.seconds(packet.dts) - self._origin_s
        if packet.dts is not None and time_s - decode_s > MAX_HOLD_S:
            raise NotOrdinaryError("a frame far ahead of its neighbours")
        return Coded(
            time_s=time_s,
            decode_s=decode_s,
            period_s=video.seconds(packet.duration) if packet.duration else video.nominal_s,
            is_key=packet.is_keyframe,
            is_shown=not packet.is_discard,
            num_bytes=packet.size,
            packet=packet,
        )

    def _count(self, coded: Coded[Packet]) -> None:
        if not coded.is_shown:
            return
        if self._num_in_range is not None:
            self._num_in_range += self._grid.holds(max(0.0, coded.time_s))
        if coded.time_s >= self._last_s:
            self._last_s = coded.time_s
            self._end_s = coded.time_s + min(coded.period_s, MAX_HOLD_S)

    def _maybe_jump(self) -> Iterator[VideoInfo | SampledFrame]:
        target_s = self._needed.worth_jumping_to(_MIN_GAP_S) if self._may_seek else None
        if target_s is None:
            return
        stamp = int((target_s - _SEEK_MARGIN_S + self._origin_s) / self._video.time_base)
        if not self._is_worth_it(stamp):
            return
        yield from self._decoder.run(self._needed.jump())
        yield from self._decoder.drain()
        if self._last_s:  # else nothing of the range has been passed by
            self._num_in_range = None
        self._video.was_searched = True
        try:
            self._video.container.seek(stamp, stream=self._video.stream)
        except av.error.FFmpegError as error:
            raise NotOrdinaryError("the container cannot be searched") from error

    def _is_worth_it(self, stamp: int) -> bool:
        """Whether the last key frame before so many ticks lies ahead."""
        if self._list_is_unread:
            self._list_is_unread = False
            return True
        entries = self._video.stream.index_entries
        found = entries.search_timestamp(stamp, backward=True)
        return found >= 0 and self._video.seconds(entries[found].timestamp) - self._origin_s > self._last_s + 1
