"""Videos in buckets: which objects a folder (a prefix) or a glob of s3:// names."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from indexer.errors import SourceError
from indexer.ingest.files import VideoFile, video_of
from indexer.ingest.on_disk import OnDisk
from indexer.ingest.paths import VIDEO_EXTENSIONS, is_transport_stream, matches_glob
from indexer.ingest.sidecars import Sidecars, is_subtitle_name
from indexer.storage import ObjectPath, open_binary
from indexer.storage.objects import ObjectFacts

_TS_PACKET_BYTES = 188


def videos_below(folder: ObjectPath) -> Iterator[VideoFile]:
    """The videos below a prefix, at any depth, in order of their keys; hidden ones are left out.

    Raises:
        SourceError: there are none.
    """
    found = _Found()
    start = len(folder.key) + 1 if folder.key else 0
    found.add_all(
        (one, _is_video(one))
        for one in folder.below()
        if not any(part.startswith(".") for part in one.key[start:].split("/"))
    )
    if not found.videos and not found.num_others:
        raise SourceError(f"cannot index {str(folder)!r}: there is no object of this name or below it; check it")
    if not found.videos:
        raise SourceError(
            f"the folder {str(folder)!r} holds {found.num_others} objects, none with a video extension; "
            "name an object directly to try it anyway"
        )
    yield from found.with_subtitles()


def videos_matching(pattern: ObjectPath) -> Iterator[VideoFile]:
    """The videos whose name matches a glob, as in a folder of this machine.

    Raises:
        SourceError: there are none.
    """
    spelt_out = os.path.splitext(pattern.name)[1]
    any_name = bool(spelt_out) and not glob.has_magic(spelt_out)
    num_matching = 0

    def listed() -> Iterator[tuple[ObjectPath, bool]]:
        nonlocal num_matching
        for one in _fixed_part(pattern).below():
            matches = matches_glob(str(one), str(pattern))
            num_matching += matches
            yield one, matches and (any_name or _is_video(one))

    found = _Found()
    found.add_all(listed())
    if not found.videos:
        held = f"matches {num_matching} objects, none with a video extension" if num_matching else "matches no object"
        raise SourceError(f"the pattern {str(pattern)!r} {held}; check it, or name a folder")
    yield from found.with_subtitles()


@dataclass(frozen=True, kw_only=True, slots=True)
class _Subtitles:
    """A subtitle file in a bucket, as `Sidecars` wants to see it."""

    uri: str
    size_bytes: int
    mtime_ns: int
    etag: str

    @property
    def name(self) -> str:
        return self.uri.rpartition("/")[2]

    def stat(self) -> ObjectFacts:
        return ObjectFacts(st_size=self.size_bytes, st_mtime_ns=self.mtime_ns, etag=self.etag)


class _Found:
    """What a listing holds: a subtitle file may come long after its video.

    Attributes:
        videos: the videos.
        num_others: objects that are none.
    """

    def __init__(self) -> None:
        self.videos = OnDisk(VideoFile)
        self.num_others = 0
        self._subtitles = OnDisk(_Subtitles)

    def add_all(self, listed: Iterable[tuple[ObjectPath, bool]]) -> None:
        """Adds objects, each with whether it is a video."""
        self.videos.add_all(self._videos_among(listed))

    def _videos_among(self, listed: Iterable[tuple[ObjectPath, bool]]) -> Iterator[VideoFile]:
        for one, is_video in listed:
            if is_video:
                yield video_of(one)
            else:
                self.num_others += 1
            if is_subtitle_name(one.name):
                facts = one.stat()
                self._subtitles.add(
                    _Subtitles(uri=str(one), size_bytes=facts.st_size, mtime_ns=facts.st_mtime_ns, etag=facts.etag)
                )

    def with_subtitles(self) -> Iterator[VideoFile]:
        """The videos, with what the same listing says of the subtitle files beside them."""
        has_any = bool(self._subtitles)
        for video in self.videos:
            folder, _, name = video.uri.rpartition("/")
            named_alike = self._subtitles.beginning(f"{os.path.splitext(video.uri)[0]}.") if has_any else ()
            beside = [file for file in named_alike if file.uri.rpartition("/")[0] == folder]
            yield replace(video, subtitles=Sidecars(beside).of(name) if beside else "")


def _fixed_part(pattern: ObjectPath) -> ObjectPath:
    """The folder that everything matching lies below."""
    while glob.has_magic(pattern.key):
        pattern = pattern.parent
    return pattern


def _is_video(path: ObjectPath) -> bool:
    """By extension. `.ts` is also TypeScript: whole packets are believed, else the first bytes are looked at."""
    extension = os.path.splitext(path.name)[1].lower()
    if extension != ".ts":
        return extension in VIDEO_EXTENSIONS
    if path.stat().st_size % _TS_PACKET_BYTES == 0:
        return True
    with open_binary(path) as file:
        return is_transport_stream(file.read(_TS_PACKET_BYTES + 1))
