"""Names of videos: which extensions count, paths and URIs, what a glob means, why a file cannot be read."""

from __future__ import annotations

import fnmatch
import glob
import os
import posixpath
import re
from urllib.parse import quote_from_bytes, unquote_to_bytes

from indexer.errors import SourceError, StorageError, VideoError
from indexer.storage import is_object_uri, location

_EXTENSIONS = """
.3g2 .3gp .amv .asf .av1 .avi .bik .divx .dv .dvr-ms .f4v .flv .gif .gxf .h264 .h265 .hevc .ivf .m1v .m2p .m2t
.m2ts .m2v .m4v .mj2 .mjpeg .mjpg .mkv .mov .mp4 .mpe .mpeg .mpg .mts .mxf .nsv .nut .obu .ogm .ogv .qt .rm
.rmvb .roq .smk .tod .trp .ts .vc1 .vob .webm .wmv .wtv .xvid .y4m
"""
VIDEO_EXTENSIONS = frozenset(_EXTENSIONS.split())
_SCHEME = re.compile(r"([a-zA-Z][a-zA-Z0-9+.-]+)://")
_CREDENTIALS = re.compile("//[^/]*@")


def has_video_extension(name: str) -> bool:
    """Whether a path or name ends in one of `VIDEO_EXTENSIONS`."""
    return os.path.splitext(name)[1].lower() in VIDEO_EXTENSIONS


def is_video_name(path: str) -> bool:
    """By extension; `.ts` is also TypeScript, so there the content has to look like an MPEG transport stream."""
    if os.path.splitext(path)[1].lower() != ".ts":
        return has_video_extension(path)
    try:
        with open(path, "rb") as file:
            start = file.read(189)
    except OSError:
        return True  # let reading it say what is wrong
    return is_transport_stream(start)


def is_transport_stream(start: bytes) -> bool:
    """Whether a file with these first 189 bytes looks like MPEG-TS."""
    return start[:1] == b"G" and start[188:] in (b"", b"G")


def source_path(source: str, *, relative_to: str | None = None) -> str:
    """Where a source lies: the absolute, normalised path of a path, `~/path` or file:// URI; or an s3:// URI.

    Links are kept as they are.

    Args:
        relative_to: the folder or s3:// URI that a relative path starts from; None is the current folder.

    Raises:
        SourceError: for other URIs.
        UsageError: an s3:// URI that is none, or holds credentials.
    """
    scheme = _SCHEME.match(source)
    if is_object_uri(source):
        return str(location(source))
    if scheme is None and relative_to is not None and is_object_uri(relative_to):
        return _beside_object(os.path.expanduser(source), relative_to)
    if scheme is None:
        return os.path.abspath(os.path.join(relative_to or "", os.path.expanduser(source)))
    if scheme[1].lower() == "file":
        return os.path.abspath(uri_to_path(source))
    shown = _CREDENTIALS.sub("//", source)
    if scheme[1].lower() in ("http", "https"):
        raise SourceError(f"cannot read {shown!r}: videos are not downloaded; download it and name the file")
    raise SourceError(f"cannot read {shown!r}: of object storage only s3:// is supported; mount it, or copy the videos")


def _beside_object(source: str, folder: str) -> str:
    """What a path means in a manifest that lies in a bucket: relative to its folder, or on this machine."""
    if posixpath.isabs(source):
        return os.path.abspath(source)
    return str(location("s3:/" + posixpath.normpath(posixpath.join(folder.removeprefix("s3:/"), source))))


def path_to_uri(path: str) -> str:
    """The path itself, or a file:// URI with percent escapes where a name is not valid UTF-8."""
    try:
        path.encode("utf-8")
    except UnicodeEncodeError:
        return "file://" + quote_from_bytes(os.fsencode(path))
    return path


def uri_to_path(uri: str) -> str:
    """What to open for a URI of `VideoFile`, or for any file:// URI: a path, or the s3:// URI as it is."""
    if not uri.startswith("file://"):
        return uri
    return os.fsdecode(unquote_to_bytes(uri.removeprefix("file://").removeprefix("localhost")))


def matches_glob(path: str, pattern: str) -> bool:
    """Whether `glob.glob(pattern, recursive=True)` would list the file at `path`, if it existed."""
    return _parts_match(path.split("/"), pattern.split("/"))


def _parts_match(parts: list[str], patterns: list[str]) -> bool:
    if not parts or not patterns:
        return not parts and not patterns
    first, hidden = patterns[0], parts[0].startswith(".")
    if first == "**":
        ends_here = len(patterns) > 1 and _parts_match(parts, patterns[1:])
        return ends_here or (not hidden and (len(parts) == 1 == len(patterns) or _parts_match(parts[1:], patterns)))
    if not glob.has_magic(first):
        return parts[0] == first and _parts_match(parts[1:], patterns[1:])
    if hidden and not first.startswith("."):
        return False
    return fnmatch.fnmatchcase(parts[0], first) and _parts_match(parts[1:], patterns[1:])


def read_error(error: OSError | StorageError) -> VideoError:
    """The VideoError for a file that the operating system or the storage would not let us read."""
    if isinstance(error, StorageError):
        return VideoError("read", "StorageError", str(error))
    if isinstance(error, (FileNotFoundError, NotADirectoryError)):
        return VideoError("read", "NotFound", "the file does not exist")
    if isinstance(error, PermissionError):
        return VideoError("read", "PermissionDenied", "no permission to read the file")
    return VideoError("read", "Unreadable", f"the file cannot be read: {error.strerror or error}")
