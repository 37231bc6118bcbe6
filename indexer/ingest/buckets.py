"""Videos in buckets: which objects a folder (a prefix) or a glob of s3:// names."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Iterator
from dataclasses import replace

from indexer.errors import SourceError
from indexer.ingest.files import VideoFile, video_of
from indexer.ingest.paths import VIDEO_EXTENSIONS, is_transport_stream, matches_glob
from indexer.ingest.sidecars import Sidecars, is_subtitle_name
from indexer.storage import ObjectPath, open_binary

_TS_PACKET_BYTES = 188


def videos_below(folder: ObjectPath) -> list[VideoFile]:
    """The videos below a prefix, at any depth, in order of their keys; hidden ones are left out.

    Raises:
        SourceError: there are none.
    """
    num_others = 0
    videos: list[VideoFile] = []
    subtitles: list[ObjectPath] = []
    start = len(folder.key) + 1 if folder.key else 0
    for found in folder.below():
        if any(part.startswith(".") for part in found.key[start:].split("/")):
            continue
        if _is_video(found):
            videos.append(video_of(found))
        else:
            num_others += 1
            subtitles += [found] if is_subtitle_name(found.name) else []
    if not videos and not num_others:
        raise SourceError(f"cannot index {str(folder)!r}: there is no object of this name or below it; check it")
    if not videos:
        raise SourceError(
            f"the folder {str(folder)!r} holds {num_others} objects, none with a video extension; "
            "name an object directly to try it anyway"
        )
    return list(_with_subtitles(videos, subtitles))


def videos_matching(pattern: ObjectPath) -> list[VideoFile]:
    """The videos whose name matches a glob, as in a folder of this machine.

    Raises:
        SourceError: there are none.
    """
    spelt_out = os.path.splitext(pattern.name)[1]
    any_name = bool(spelt_out) and not glob.has_magic(spelt_out)
    num_matching = 0
    videos: list[VideoFile] = []
    subtitles: list[ObjectPath] = []
    for found in _fixed_part(pattern).below():
        subtitles += [found] if is_subtitle_name(found.name) else []
        if matches_glob(str(found), str(pattern)):
            num_matching += 1
            videos += [video_of(found)] if any_name or _is_video(found) else []
    if not videos:
        held = f"matches {num_matching} objects, none with a video extension" if num_matching else "matches no object"
        raise SourceError(f"the pattern {str(pattern)!r} {held}; check it, or name a folder")
    return list(_with_subtitles(videos, subtitles))


def _with_subtitles(videos: Iterable[VideoFile], subtitles: Iterable[ObjectPath]) -> Iterator[VideoFile]:
    """The videos, with what the same listing says of the subtitle files beside them."""
    by_folder: dict[str, list[ObjectPath]] = {}
    for file in subtitles:
        by_folder.setdefault(str(file.parent), []).append(file)
    beside = {folder: Sidecars(files) for folder, files in by_folder.items()}
    for video in videos:
        folder, _, name = video.uri.rpartition("/")
        yield replace(video, subtitles=beside[folder].of(name) if folder in beside else "")


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
