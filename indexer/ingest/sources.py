"""Which videos there are: list folders, globs, files and manifests, and compare with what the ledger knows."""

from __future__ import annotations

import glob
import hashlib
import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from indexer.errors import SourceError
from indexer.ingest.manifests import is_manifest, read_manifest
from indexer.ingest.paths import is_video_name, local_path, matches_glob, path_to_uri, read_error, uri_to_path
from indexer.schema import FAILED

__all__ = [
    "KnownVideo",
    "Listing",
    "MissingFile",
    "Plan",
    "VideoFile",
    "diff",
    "fingerprint_file",
    "list_videos",
    "uri_to_path",
]


@dataclass(frozen=True, kw_only=True, slots=True)
class VideoFile:
    """A file that was found.

    Attributes:
        uri: absolute path as text; a file:// URI with percent escapes if the name is not valid UTF-8. Always UTF-8.
        path: what to open.
    """

    uri: str
    path: str
    size_bytes: int
    mtime_ns: int


@dataclass(frozen=True, kw_only=True, slots=True)
class MissingFile:
    """Something that is named or was met but cannot be read, and why. `gone` if it certainly does not exist."""

    uri: str
    reason: str
    gone: bool = False


@dataclass(frozen=True, kw_only=True)
class Listing:
    """What the sources hold now, each list in order of `uri` and without duplicates.

    Attributes:
        missing: entries of manifests that cannot be read; each should become a failed row of the ledger.
        unlisted: folders within the sources that could not be listed; what they hold is not known.
        roots: paths of the folders that were listed with all below them, ending in "/".
        patterns: the globs, absolute.
    """

    files: list[VideoFile]
    missing: list[MissingFile] = field(default_factory=list)
    unlisted: list[MissingFile] = field(default_factory=list)
    roots: tuple[str, ...] = ()
    patterns: tuple[str, ...] = ()

    def covers(self, uri: str) -> bool:
        """Whether these sources would have listed the video if it still existed (for `--prune`)."""
        path = uri_to_path(uri)
        if any(path.startswith(uri_to_path(folder.uri).rstrip("/") + "/") for folder in self.unlisted):
            return False
        return path.startswith(self.roots) or any(matches_glob(path, pattern) for pattern in self.patterns)


def list_videos(sources: Sequence[str]) -> Listing:
    """Lists files, folders (with all below them), globs (`**` means any depth) and manifests.

    A file that is named, by itself or in a manifest, counts whatever its extension. In folders and globs hidden files
    and folders are left out, and only the extensions of `VIDEO_EXTENSIONS` count, or those that the glob spells out.

    Raises:
        SourceError: a source does not exist, cannot be read, or holds no video.
    """
    if not sources:
        raise SourceError("no source given; name a folder, a video file, a glob or a manifest")
    lister = _Lister()
    for source in sources:
        lister.add(source)
    return lister.listing()


class _Lister:
    """Collects what one source after another holds."""

    def __init__(self) -> None:
        self._files: dict[str, VideoFile] = {}
        self._missing: dict[str, MissingFile] = {}
        self._unlisted: dict[str, MissingFile] = {}
        self._roots: list[str] = []
        self._patterns: list[str] = []

    def listing(self) -> Listing:
        def in_order(found: dict[str, MissingFile]) -> list[MissingFile]:
            return [found[uri] for uri in sorted(found)]

        files = [self._files[uri] for uri in sorted(self._files)]
        missing = {uri: missing for uri, missing in self._missing.items() if uri not in self._files}
        return Listing(
            files=files,
            missing=in_order(missing),
            unlisted=in_order(self._unlisted),
            roots=tuple(self._roots),
            patterns=tuple(self._patterns),
        )

    def add(self, source: str) -> None:
        path = local_path(source)
        if os.path.isdir(path):
            self._add_folder(path)
        elif not os.path.lexists(path) and glob.has_magic(path):
            self._add_glob(path)
        elif is_manifest(path) and os.path.isfile(path):
            self._add_manifest(path)
        else:
            found = look_at(path)
            if isinstance(found, MissingFile):
                raise SourceError(f"cannot index {source!r}: {found.reason}; check the path")
            self._files[found.uri] = found

    def _add_folder(self, folder: str) -> None:
        num_others, others = 0, set()
        num_before = len(self._files)
        num_videos = 0
        for entry in self._walk(folder):
            if not is_video_name(entry.path):
                num_others += 1
                others.add(os.path.splitext(entry.name)[1] or "no extension")
            elif isinstance(found := look_at(entry.path), VideoFile):
                self._files[found.uri] = found
                num_videos += 1
        if not num_videos and len(self._files) == num_before:
            raise SourceError(_nothing_in(folder, num_others, sorted(others), list(self._unlisted.values())))
        self._roots.append(folder.rstrip("/") + "/")

    def _walk(self, folder: str) -> Iterator[os.DirEntry[str]]:
        """Files below a folder. Linked folders come last, so that a file reached both ways keeps its real path."""
        folders, linked = [folder], list[str]()
        seen: set[tuple[int, int]] = set()
        while folders or linked:
            current = folders.pop() if folders else linked.pop(0)
            try:
                status = os.stat(current)
                if (status.st_dev, status.st_ino) in seen:
                    continue
                seen.add((status.st_dev, status.st_ino))
                with os.scandir(current) as scan:
                    visible = [entry for entry in scan if not entry.name.startswith(".")]
            except OSError as error:
                uri, reason = path_to_uri(current), f"the folder cannot be listed: {error.strerror or error}"
                self._unlisted[uri] = MissingFile(uri=uri, reason=reason)
                continue
            for entry in sorted(visible, key=lambda entry: entry.name):
                if entry.is_dir():
                    (linked if entry.is_symlink() else folders).append(entry.path)
                elif entry.is_file():
                    yield entry

    def _add_glob(self, pattern: str) -> None:
        spelt_out = os.path.splitext(pattern)[1]
        any_name = bool(spelt_out) and not glob.has_magic(spelt_out)
        paths = [path for path in glob.iglob(pattern, recursive=True) if os.path.isfile(path)]
        found = [look_at(path) for path in paths if any_name or is_video_name(path)]
        videos = [video for video in found if isinstance(video, VideoFile)]
        if not videos:
            held = f"matches {len(paths)} files, none with a video extension" if paths else "matches no file"
            raise SourceError(f"the pattern {pattern!r} {held}; check it, or name a folder")
        self._files.update((video.uri, video) for video in videos)
        self._patterns.append(pattern)

    def _add_manifest(self, manifest: str) -> None:
        folder = os.path.dirname(manifest)
        for entry in read_manifest(manifest):
            found = look_at(local_path(entry, relative_to=folder))
            if isinstance(found, VideoFile):
                self._files[found.uri] = found
            else:
                self._missing[found.uri] = found


def _nothing_in(folder: str, num_others: int, others: list[str], unlisted: list[MissingFile]) -> str:
    if not num_others and unlisted:
        return f"the folder {folder!r} holds no video that can be listed: {unlisted[0].reason}; check its permissions"
    if not num_others:
        return f"the folder {folder!r} is empty; name a folder that holds videos"
    kinds = ", ".join(others[:5]) + (", ..." if len(others) > 5 else "")
    files = "1 file" if num_others == 1 else f"{num_others} files, none"
    return (
        f"the folder {folder!r} holds {files}{' without' if num_others == 1 else ' with'} a video extension ({kinds}); "
        "name a file directly to try it anyway"
    )


def look_at(path: str) -> VideoFile | MissingFile:
    uri = path_to_uri(path)
    try:
        status = os.stat(path)
    except FileNotFoundError:
        return MissingFile(uri=uri, reason="the file does not exist", gone=True)
    except (OSError, ValueError) as error:
        return MissingFile(uri=uri, reason=f"the file cannot be read: {getattr(error, 'strerror', None) or error}")
    if stat.S_ISDIR(status.st_mode):
        return MissingFile(uri=uri, reason="it is a folder, not a file")
    if not stat.S_ISREG(status.st_mode):
        return MissingFile(uri=uri, reason="it is not a regular file")
    return VideoFile(uri=uri, path=path, size_bytes=status.st_size, mtime_ns=status.st_mtime_ns)


def fingerprint_file(path: str) -> str:
    """`blake2b:` and 32 hex digits, over all bytes of the file.

    Raises:
        VideoError: stage "read".
    """
    digest = hashlib.blake2b(digest_size=16)
    try:
        with open(path, "rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    except OSError as error:
        raise read_error(error) from error
    return f"blake2b:{digest.hexdigest()}"


@dataclass(frozen=True, kw_only=True, slots=True)
class KnownVideo:
    """What the ledger holds of a video."""

    uri: str
    size_bytes: int
    mtime_ns: int
    status: str


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What there is to do. Every file of the listing is in exactly one of the first three, in order of `uri`.

    Attributes:
        changed: another size or modification time than in the ledger; or it failed before and is to be tried again.
        unchanged: same size and modification time as in the ledger, whether indexed or failed.
        vanished: URIs in the ledger that these sources cover but that no longer exist, in order.
    """

    new: list[VideoFile] = field(default_factory=list)
    changed: list[VideoFile] = field(default_factory=list)
    unchanged: list[VideoFile] = field(default_factory=list)
    vanished: list[str] = field(default_factory=list)


def diff(listing: Listing, known: Mapping[str, KnownVideo], *, retry_failed: bool = False) -> Plan:
    """Compares by size and modification time; whether a changed file really differs, its fingerprint must tell."""
    plan = Plan()
    for file in listing.files:
        before = known.get(file.uri)
        if before is None:
            plan.new.append(file)
        elif (file.size_bytes, file.mtime_ns) != (before.size_bytes, before.mtime_ns) or (
            retry_failed and before.status == FAILED
        ):
            plan.changed.append(file)
        else:
            plan.unchanged.append(file)
    missing = {missing.uri: missing.gone for missing in listing.missing}
    unlisted = known.keys() - {file.uri for file in listing.files}
    plan.vanished.extend(sorted(uri for uri in unlisted if missing.get(uri, listing.covers(uri))))
    return plan
