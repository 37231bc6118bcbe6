"""Open a video with FFmpeg and decode its picture, going on past damage as FFmpeg does.

A file of this machine is read by FFmpeg itself, an object in a bucket through `RangeReader`, as far as FFmpeg asks.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import av
import av.error
import av.logging
from av.codec.hwaccel import HWAccel
from av.container import InputContainer
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from indexer.errors import StorageError, VideoError
from indexer.ingest.paths import read_error
from indexer.storage import ObjectPath, RangeReader, location

av.logging.set_level(None)

MAX_ERRORS_IN_A_ROW = 5000  # packets; after that the rest of the file is taken for garbage
# A playlist posing as a video must not open network addresses; one from a bucket, no files of this machine either.
_FILE_OPTIONS, _OBJECT_OPTIONS = {"protocol_whitelist": "file"}, {"protocol_whitelist": "none"}
_CALLBACK_BYTES = 256 << 10


@contextmanager
def open_container(path: str, accel: HWAccel | None = None) -> Iterator[InputContainer]:
    """Opens by content, not by extension; closes when the block ends.

    Args:
        path: of a file, or the s3:// URI of an object.
        accel: what decodes in place of the CPU, where it can.

    Raises:
        VideoError: stage "read" (not there, empty, no permission; the storage failed, also later within the block) or
            "open" (not a video).
    """
    with _readable(path) as file:
        try:
            with ffmpeg_errors("open"):
                container = av.open(
                    file,
                    "r",
                    metadata_errors="replace",
                    options=_FILE_OPTIONS if isinstance(file, str) else _OBJECT_OPTIONS,
                    buffer_size=_CALLBACK_BYTES,
                    hwaccel=accel,
                )
        except (av.error.InvalidDataError, av.error.EOFError, UnicodeDecodeError) as error:
            raise VideoError("open", "NotAVideo", "not a video file, or its header is damaged or missing") from error
        with container:
            yield container


@contextmanager
def _readable(path: str) -> Iterator[str | RangeReader]:
    """What FFmpeg is given to read."""
    where = location(path)
    if not isinstance(where, ObjectPath):
        _require_readable_file(path)
        yield os.path.abspath(path)
        return
    try:
        reader = RangeReader(where)
    except (OSError, StorageError) as error:
        raise read_error(error) from None
    _require_content(reader.num_bytes)
    try:
        yield reader
    except Exception:
        if reader.error is not None:  # whatever FFmpeg has made of it
            raise read_error(reader.error) from None
        raise
    if reader.error is not None:
        raise read_error(reader.error)


def _require_readable_file(path: str) -> None:
    try:
        status = os.stat(path)
        if not stat.S_ISREG(status.st_mode):  # opening a pipe would wait for ever
            raise VideoError("read", "NotAFile", "not a regular file")
        with open(path, "rb"):
            pass
    except OSError as error:
        raise read_error(error) from error
    _require_content(status.st_size)


def _require_content(num_bytes: int) -> None:
    if num_bytes == 0:
        raise VideoError("read", "EmptyFile", "the file is empty (0 bytes)")


@contextmanager
def ffmpeg_errors(stage: str) -> Iterator[None]:
    """Turns what FFmpeg and Python raise into VideoErrors; invalid data while opening is left to the caller."""
    try:
        yield
    except MemoryError as error:
        raise out_of_memory(stage) from error
    except (av.error.InvalidDataError, av.error.EOFError) as error:
        if stage == "open":
            raise
        raise VideoError(stage, "DamagedData", "the file is damaged") from error
    except av.error.FFmpegError as error:
        raise VideoError(
            stage, "Unreadable", f"FFmpeg cannot read it: {error.strerror or type(error).__name__}"
        ) from error


def out_of_memory(stage: str) -> VideoError:
    text = "decoding needs more memory than the decoder may use: the picture is very large or the file is damaged"
    return VideoError(stage, "OutOfMemory", text)


def choose_stream(container: InputContainer, max_pixels: int) -> VideoStream:
    """The stream that is the film: not cover art unless there is nothing else; then FFmpeg's own choice.

    Raises:
        VideoError: stage "open".
    """
    streams = list(container.streams.video)
    if not streams:
        held = "only audio" if container.streams.audio else "no audio either"
        raise VideoError("open", "NoVideoStream", f"no video stream: the file holds {held}")
    decodable = [stream for stream in streams if stream.codec_context is not None]
    if not decodable:
        raise VideoError("open", "UnsupportedCodec", "this FFmpeg has no decoder for the video stream")
    films = [stream for stream in decodable if not is_cover_art(stream)] or decodable
    best = container.streams.best("video")
    stream = next((film for film in films if best is not None and film.index == best.index), films[0])
    require_size(stream.codec_context.width, stream.codec_context.height, max_pixels)
    stream.thread_type = "NONE"
    stream.codec_context.thread_count = 1
    return stream


def is_cover_art(stream: VideoStream) -> bool:
    return bool(stream.disposition & av.stream.Disposition.attached_pic)


def require_size(width: int, height: int, max_pixels: int) -> None:
    if width * height > max_pixels:
        text = f"the picture is {width} x {height} pixels; at most {max_pixels / 1e6:.0f} million pixels are decoded"
        raise VideoError("open", "TooLarge", text)


@dataclass(kw_only=True)
class Damage:
    """What went wrong while a file was being read, and how far it went on."""

    first_at_s: float | None = None
    num_packets: int = 0
    num_in_a_row: int = 0
    encrypted: bool = False
    out_of_memory: bool = False  # also what FFmpeg says of a damaged packet that asks for gigabytes
    other_streams_end_s: float = 0.0  # tells a short picture with long sound from a file that was cut off

    def note(self, at_s: float | None) -> None:
        if not self.num_packets:
            self.first_at_s = at_s
        self.num_packets += 1
        self.num_in_a_row += 1

    def note_other_stream(self, packet: Packet, origin_s: float) -> None:
        """A packet of sound or the like, of a timeline that starts at `origin_s`."""
        self.other_streams_end_s = max(self.other_streams_end_s, (_end_s(packet) or 0.0) - origin_s)

    def describe(self) -> str | None:
        if not self.num_packets:
            return None
        place = "" if self.first_at_s is None else f" at {self.first_at_s:.1f} s"
        more = f", the first of {self.num_packets} damaged packets" if self.num_packets > 1 else ""
        return f"damaged data{place}{more}"


def decode_frames(
    container: InputContainer, stream: VideoStream, damage: Damage, on_packet: Callable[[], None] | None = None
) -> Iterator[VideoFrame]:
    """Every frame of the stream, in decoding order. Errors are noted in `damage` and skipped."""
    origin_s = (container.start_time or 0) / av.time_base
    for packet in _packets(container, damage):
        if on_packet is not None:
            on_packet()
        if packet.stream.index != stream.index:  # `packet.stream_index` is unset in the packets that flush
            damage.note_other_stream(packet, origin_s)
            continue
        damage.encrypted = damage.encrypted or packet.has_sidedata("encryption_info")
        try:
            frames = packet.decode()
            damage.num_in_a_row = 0
        except av.error.FFmpegError as error:
            damage.out_of_memory = damage.out_of_memory or isinstance(error, MemoryError)
            start_s = _start_s(packet)
            damage.note(None if start_s is None else max(0.0, start_s - origin_s))
            frames = []
        yield from frames
        if damage.num_in_a_row >= MAX_ERRORS_IN_A_ROW:
            return


def _packets(container: InputContainer, damage: Damage) -> Iterator[Packet]:
    """All packets, and after an error of the container itself what the decoders still hold."""
    try:
        yield from container.demux()
    except av.error.FFmpegError:
        damage.note(None)
        for stream in container.streams.video:
            flush = Packet()
            flush.stream = stream
            yield flush


def _start_s(packet: Packet) -> float | None:
    stamp = packet.pts if packet.pts is not None else packet.dts
    return None if stamp is None else float(stamp * packet.time_base)


def _end_s(packet: Packet) -> float | None:
    start_s = _start_s(packet)
    return None if start_s is None else start_s + float((packet.duration or 0) * packet.time_base)
