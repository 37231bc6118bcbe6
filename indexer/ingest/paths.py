"""Names of videos: which extensions count, paths and URIs, what a glob means, why a file cannot be read."""

from __future__ import annotations

import fnmatch
import glob
import os
import re
from urllib.parse import quote_from_bytes, unquote_to_bytes

from indexer.errors import SourceError, VideoError

_EXTENSIONS = """
.3g2 .3gp .amv .asf .av1 .avi .bik .divx .dv .dvr-ms .f4v .flv .gif .gxf .h264 .h265 .hevc .ivf .m1v .m2p .m2t
.m2ts .m2v .m4v .mj2 .mjpeg .mjpg .mkv .mov .mp4 .mpe .mpeg .mpg .mts .mxf .nsv .nut .obu .ogm .ogv .qt .rm
.rmvb .roq .smk .tod .trp .ts .vc1 .vob .webm .wmv .wtv .xvid .y4m
"""
VIDEO_EXTENSIONS = frozenset(_EXTENSIONS.split())
_SCHEME = re.compile(r"([a-zA-Z][a-zA-Z0-9+.-]+)://")


def is_video_name(path: str) -> bool:
    """By extension; `.ts` is also TypeScript, so there the content has to look like an MPEG transport stream."""
    extension = os.path.splitext(path)[1].lower()
    if extension != ".ts":
        return extension in VIDEO_EXTENSIONS
    try:
        with open(path, "rb") as file:
            start = file.read(189)
    except OSError:
        return True  # let reading it say what is wrong
    return start[:1] == b"G" and start[188:] in (b"", b"G")


def local_path(source: str, *, relative_to: str | None = None) -> str:
    """Absolute, normalised path of a source: a path, `~/path` or file:// URI. Links are kept as they are.

    Raises:
        SourceError: for other URIs.
    """
    scheme = _SCHEME.match(source)
    if scheme is None:
        return os.path.abspath(os.path.join(relative_to or "", os.path.expanduser(source)))
    if scheme[1].lower() == "file":
        return os.path.abspath(uri_to_path(source))
    if scheme[1].lower() in ("http", "https"):
        raise SourceError(f"cannot read {source!r}: videos are not downloaded; download it and name the file")
    raise SourceError(f"cannot read {source!r}: object storage is not supported yet; mount it, or copy the videos")


def path_to_uri(path: str) -> str:
    """The path itself, or a file:// URI with percent escapes where a name is not valid UTF-8."""
    try:
        path.encode("utf-8")
    except UnicodeEncodeError:
        return "file://" + quote_from_bytes(os.fsencode(path))
    return path


def uri_to_path(uri: str) -> str:
    """The path of a URI of `VideoFile`, or of any file:// URI."""
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


def read_error(error: OSError) -> VideoError:
    """The VideoError for a file that the operating system would not let us read."""
    if isinstance(error, (FileNotFoundError, NotADirectoryError)):
        return VideoError("read", "NotFound", "the file does not exist")
    if isinstance(error, PermissionError):
        return VideoError("read", "PermissionDenied", "no permission to read the file")
    return VideoError("read", "Unreadable", f"the file cannot be read: {error.strerror or error}")
