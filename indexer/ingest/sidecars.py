"""Which subtitle file belongs to a video, and which state of it: told from a listing, without a look at the video.

    film.srt   film.en.vtt   film.pt-BR.srt   film.en.sdh.srt   film.forced.srt

Of several beside one video, one is taken: whole ones before `forced` ones (which translate single words only), without
a language before English before others, without marks such as `sdh` before those with, then in order of name.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable, Iterator
from typing import Any, Protocol

from indexer.ingest.languages import named_language
from indexer.storage import Location, ObjectPath, location

_SUFFIX = re.compile(
    r"(?:\.(?!cc\.|sdh\.)(?P<language>[a-z]{2,3}(?:[-_][a-z0-9]{2,8})*))?"
    r"(?P<marks>(?:\.(?:cc|default|forced|full|hi|sdh))*)\.(?:srt|vtt)",
    re.IGNORECASE,
)
_MAX_PARTS = 4  # of a suffix, the extension included


class Entry(Protocol):
    """A file as a listing has it: an `os.DirEntry`, a path or an `ObjectPath`."""

    @property
    def name(self) -> str: ...

    def stat(self) -> Any: ...


class Sidecars:
    """The subtitle files among some entries of one folder, by the video that they may belong to."""

    def __init__(self, entries: Iterable[Entry]) -> None:
        self._by_stem: dict[str, list[tuple[tuple[object, ...], str, Entry]]] = {}
        for entry in entries:
            for stem, suffix in _claims(entry.name):
                self._by_stem.setdefault(stem, []).append((_rank(suffix), suffix, entry))

    def of(self, video_name: str) -> str:
        """What `VideoFile.subtitles` says: the file and its state, or ""."""
        claims = self._by_stem.get(os.path.splitext(video_name)[0])
        if claims is None:
            return ""
        _, suffix, entry = min(claims, key=lambda claim: claim[0])
        try:
            status = entry.stat()
        except OSError:  # a link to nowhere
            return ""
        return _state(suffix, status) if _is_file(status) else ""


def sidecars_beside(path: str) -> Sidecars:
    """The subtitle files in the folder of a video; of an object only its own.

    Raises:
        StorageError: the bucket cannot be reached.
    """
    where = location(path).absolute()
    return Sidecars(objects_beside(where)) if isinstance(where, ObjectPath) else sidecars_in(os.fspath(where.parent))


def objects_beside(video: ObjectPath) -> list[ObjectPath]:
    """The objects that have the name of a video up to its extension: itself, its subtitle files, perhaps more."""
    return video.parent.beginning(os.path.splitext(video.name)[0] + ".")


def sidecars_in(folder: str) -> Sidecars:
    """The subtitle files of a folder of this machine; none where it cannot be listed."""
    try:
        with os.scandir(folder) as entries:
            return Sidecars(entries)
    except OSError:
        return Sidecars([])


def subtitle_path(video_path: str, subtitles: str) -> Location:
    """Where the subtitle file lies that `VideoFile.subtitles` speaks of."""
    video = location(video_path).absolute()
    return video.parent / (os.path.splitext(video.name)[0] + subtitles.partition(" ")[0])


def language_of_name(subtitles: str) -> str | None:
    """The language that the name of the subtitle file states."""
    found = _SUFFIX.fullmatch(subtitles.partition(" ")[0])
    return named_language(found["language"]) if found else None


def is_subtitle_name(name: str) -> bool:
    return name.lower().endswith((".srt", ".vtt"))


def _claims(name: str) -> Iterator[tuple[str, str]]:
    """Stems of videos that the file may belong to, each with what follows it in the name."""
    if not is_subtitle_name(name):
        return
    stem, suffix = name, ""
    for _ in range(_MAX_PARTS):
        stem, dot, part = stem.rpartition(".")
        suffix = f"{dot}{part}{suffix}"
        if not stem:
            return
        if _SUFFIX.fullmatch(suffix):
            yield stem, suffix


def _rank(suffix: str) -> tuple[object, ...]:
    found = _SUFFIX.fullmatch(suffix)
    assert found is not None
    language, marks = (found["language"] or "").lower(), found["marks"].lower()
    order = 0 if not language else 1 if named_language(language) == "en" else 2
    return "forced" in marks, order, bool(marks), suffix


def _is_file(status: Any) -> bool:
    """Whether it can be read: an object, or a file; a pipe would be waited for, for ever."""
    return hasattr(status, "etag") or stat.S_ISREG(status.st_mode)


def _state(suffix: str, status: Any) -> str:
    etag = getattr(status, "etag", "")
    version = f"etag:{etag}" if etag else f"mtime_ns:{status.st_mtime_ns}"
    return f"{suffix} {version} bytes:{status.st_size}"
