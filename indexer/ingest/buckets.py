"""Videos in buckets: which objects a folder (a prefix) or a glob of s3:// names."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator

from indexer.errors import SourceError
from indexer.ingest.files import VideoFile, video_of
from indexer.ingest.paths import VIDEO_EXTENSIONS, is_transport_stream, matches_glob
from indexer.storage import ObjectPath, open_binary

_TS_PACKET_BYTES = 188


def videos_below(folder: ObjectPath) -> Iterator[VideoFile]:
    """The videos below a prefix, at any depth, in order of their keys; hidden ones are left out.

    Raises:
        SourceError: there are none.
    """
    num_others, num_videos = 0, 0
    start = len(folder.key) + 1 if folder.key else 0
    for found in folder.below():
        if any(part.startswith(".") for part in found.key[start:].split("/")):
            continue
        if _is_video(found):
            num_videos += 1
            yield video_of(found)
        else:
            num_others += 1
    if not num_videos and not num_others:
        raise SourceError(f"cannot index {str(folder)!r}: there is no object of this name or below it; check it")
    if not num_videos:
        raise SourceError(
            f"the folder {str(folder)!r} holds {num_others} objects, none with a video extension; "
            "name an object directly to try it anyway"
        )


def videos_matching(pattern: ObjectPath) -> Iterator[VideoFile]:
    """The videos whose name matches a glob, as in a folder of this machine.

    Raises:
        SourceError: there are none.
    """
    spelt_out = os.path.splitext(pattern.name)[1]
    any_name = bool(spelt_out) and not glob.has_magic(spelt_out)
    num_matching, num_videos = 0, 0
    for found in _fixed_part(pattern).below():
        if matches_glob(str(found), str(pattern)):
            num_matching += 1
            if any_name or _is_video(found):
                num_videos += 1
                yield video_of(found)
    if not num_videos:
        held = f"matches {num_matching} objects, none with a video extension" if num_matching else "matches no object"
        raise SourceError(f"the pattern {str(pattern)!r} {held}; check it, or name a folder")


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
