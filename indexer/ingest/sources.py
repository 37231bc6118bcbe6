"""Which videos there are: list folders, globs, files and manifests, on this machine and in buckets.

There may be millions: what is found goes to a temporary file, and no more than one folder is looked at as a whole.
"""

from __future__ import annotations

import glob
import os
from collections import Counter, OrderedDict
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from indexer.errors import SourceError, StorageError
from indexer.ingest.buckets import videos_below, videos_matching
from indexer.ingest.files import MissingFile, VideoFile, look_at, look_at_object
from indexer.ingest.manifests import is_manifest, read_manifest
from indexer.ingest.on_disk import OnDisk
from indexer.ingest.paths import has_video_extension, is_video_name, matches_glob, path_to_uri, source_path, uri_to_path
from indexer.ingest.sidecars import Sidecars, objects_beside, sidecars_in
from indexer.storage import ObjectPath, location

# Folders of files that are named one by one, usually one folder after the other.
_FOLDERS_REMEMBERED = 64


@dataclass(frozen=True, kw_only=True)
class Listing:
    """What the sources hold now, each collection in order of `uri` and without duplicates.

    Attributes:
        missing: what a manifest names, or a folder or glob holds under a video's name, and cannot be read; each should
            become a failed row of the ledger.
        unlisted: folders within the sources that could not be listed; what they hold is not known.
        roots: paths of the folders that were listed with all below them, ending in "/".
        patterns: the globs, absolute.
    """

    files: Collection[VideoFile]
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


class NamedFiles:
    """Looks at videos that are named one by one, with the subtitle files beside them; remembers the last folders."""

    def __init__(self) -> None:
        self._beside: OrderedDict[str, Sidecars] = OrderedDict()

    def look_at(self, path: str) -> VideoFile | MissingFile:
        """The file at a path or s3:// URI, or why it is none."""
        where = location(path)
        if isinstance(where, ObjectPath) and where.key:
            return _object_with_subtitles(where)
        found = look_at(path)
        if isinstance(found, MissingFile):
            return found
        folder, name = os.path.split(os.path.abspath(path))
        return replace(found, subtitles=self._sidecars(folder).of(name))

    def _sidecars(self, folder: str) -> Sidecars:
        if folder not in self._beside:
            self._beside[folder] = sidecars_in(folder)
            if len(self._beside) > _FOLDERS_REMEMBERED:
                self._beside.popitem(last=False)
        return self._beside[folder]


def _object_with_subtitles(where: ObjectPath) -> VideoFile | MissingFile:
    """One listing tells of the object and of its subtitle files."""
    try:
        beside = objects_beside(where)
    except StorageError as error:
        return MissingFile(uri=str(where), reason=str(error))
    found = look_at_object(next((other for other in beside if other == where), where))
    return replace(found, subtitles=Sidecars(beside).of(where.name)) if isinstance(found, VideoFile) else found


class _Lister:
    """Collects what one source after another holds."""

    def __init__(self) -> None:
        self._files = OnDisk(VideoFile)
        self._missing: dict[str, MissingFile] = {}
        self._unlisted: dict[str, MissingFile] = {}
        self._roots: list[str] = []
        self._patterns: list[str] = []
        self._named = NamedFiles()

    def listing(self) -> Listing:
        def in_order(found: dict[str, MissingFile]) -> list[MissingFile]:
            return [found[uri] for uri in sorted(found)]

        missing = {uri: missing for uri, missing in self._missing.items() if not self._files.get(uri)}
        return Listing(
            files=self._files,
            missing=in_order(missing),
            unlisted=in_order(self._unlisted),
            roots=tuple(self._roots),
            patterns=tuple(self._patterns),
        )

    def add(self, source: str) -> None:
        path = source_path(source)
        where = location(path)
        if isinstance(where, ObjectPath):
            self._add_object(where)
        elif os.path.isdir(path):
            self._add_folder(path)
        elif not os.path.lexists(path) and glob.has_magic(path):
            self._add_glob(path)
        elif is_manifest(path) and os.path.isfile(path):
            self._add_manifest(path)
        else:
            found = self._named.look_at(path)
            if isinstance(found, MissingFile):
                raise SourceError(f"cannot index {source!r}: {found.reason}; check the path")
            self._files.add(found)

    def _add_object(self, where: ObjectPath) -> None:
        """An object if there is one of exactly this name, else a glob, else all that lies below."""
        if where.exists():
            if is_manifest(where.key):
                self._add_manifest(str(where))
            else:
                self._add_files([self._named.look_at(str(where))])
        elif glob.has_magic(where.key):
            self._add_files(videos_matching(where))
            self._patterns.append(str(where))
        else:
            self._add_files(videos_below(where))
            self._roots.append(f"{where}/")

    def _add_files(self, found: Iterable[VideoFile | MissingFile]) -> int:
        """Adds what is found one after the other, and returns how many videos that is."""
        num_videos = 0

        def videos() -> Iterator[VideoFile]:
            nonlocal num_videos
            for file in found:
                if isinstance(file, VideoFile):
                    num_videos += 1
                    yield file
                else:
                    self._missing[file.uri] = file

        self._files.add_all(videos())
        return num_videos

    def _add_folder(self, folder: str) -> None:
        others, unreadable = Counter[str](), list[MissingFile]()
        num_videos = self._add_files(
            video for entries in self._walk(folder) for video in _videos_among(entries, others, unreadable)
        )
        if not num_videos:
            unlisted = [found for found in self._unlisted.values() if uri_to_path(found.uri).startswith(folder)]
            raise SourceError(_nothing_in(folder, others, [*unreadable, *unlisted]))
        self._add_files(unreadable)
        self._roots.append(folder.rstrip("/") + "/")

    def _walk(self, folder: str) -> Iterator[list[os.DirEntry[str]]]:
        """What is below a folder, the entries of one folder at a time. Linked folders come last, so that a file reached
        both ways keeps its real path."""
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
            files = []
            for entry in sorted(visible, key=lambda entry: entry.name):
                if _is_folder(entry):
                    (linked if entry.is_symlink() else folders).append(entry.path)
                else:
                    files.append(entry)
            yield files

    def _add_glob(self, pattern: str) -> None:
        spelt_out = os.path.splitext(pattern)[1]
        any_name = bool(spelt_out) and not glob.has_magic(spelt_out)
        num_matching, unreadable = 0, list[MissingFile]()

        def videos() -> Iterator[VideoFile]:
            nonlocal num_matching
            for path in glob.iglob(pattern, recursive=True):
                if os.path.isdir(path):
                    continue
                num_matching += 1
                found = self._named.look_at(path) if any_name or has_video_extension(path) else None
                if isinstance(found, VideoFile) and (any_name or is_video_name(found.path)):
                    yield found
                elif isinstance(found, MissingFile) and not found.gone:
                    unreadable.append(found)

        if not self._add_files(videos()):
            held = f"matches {num_matching} files, none with a video extension" if num_matching else "matches no file"
            held = f"matches no video that can be read: {unreadable[0].reason}" if unreadable else held
            raise SourceError(f"the pattern {pattern!r} {held}; check it, or name a folder")
        self._add_files(unreadable)
        self._patterns.append(pattern)

    def _add_manifest(self, manifest: str) -> None:
        folder = os.path.dirname(manifest)
        self._add_files(
            self._named.look_at(source_path(entry, relative_to=folder)) for entry in read_manifest(manifest)
        )


def _videos_among(
    entries: Sequence[os.DirEntry[str]], others: Counter[str], unreadable: list[MissingFile]
) -> Iterator[VideoFile]:
    """The videos of one folder. Counts its other files by their extensions, and adds the videos that cannot be read."""
    sidecars = Sidecars(entries)
    for entry in entries:
        found = look_at(entry.path) if has_video_extension(entry.name) else None
        if isinstance(found, VideoFile) and is_video_name(entry.path):
            yield replace(found, subtitles=sidecars.of(entry.name))
        elif isinstance(found, MissingFile):
            unreadable += [] if found.gone else [found]  # deleted since the folder was read
        else:
            others[os.path.splitext(entry.name)[1] or "no extension"] += 1


def _is_folder(entry: os.DirEntry[str]) -> bool:
    """Also a link that may not be followed, unless it has a video's name: what it leads to is not known."""
    try:
        return entry.is_dir()
    except PermissionError:
        return not has_video_extension(entry.name)
    except OSError:  # a link to itself
        return False


def _nothing_in(folder: str, others: Counter[str], unreadable: list[MissingFile]) -> str:
    if unreadable:
        return f"the folder {folder!r} holds no video that can be read: {unreadable[0].reason}; check its permissions"
    num_others = others.total()
    if not num_others:
        return f"the folder {folder!r} is empty; name a folder that holds videos"
    kinds = ", ".join(sorted(others)[:5]) + (", ..." if len(others) > 5 else "")
    files = "1 file" if num_others == 1 else f"{num_others} files, none"
    return (
        f"the folder {folder!r} holds {files}{' without' if num_others == 1 else ' with'} a video extension ({kinds}); "
        "name a file directly to try it anyway"
    )
