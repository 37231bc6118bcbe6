"""Which video of an index a person or a table means."""

from __future__ import annotations

import os
from collections.abc import Iterable

from indexer.errors import SourceError, UsageError
from indexer.ingest.paths import path_to_uri, source_path


class VideoNames:
    """Finds videos by URI, by path seen from a folder, or by the end of the URI.

    Args:
        uris: of the videos in the index.
        table: path of the table that names them; relative paths start from its folder, None: from the current one.
    """

    def __init__(self, uris: Iterable[str], table: str | None = None) -> None:
        self._uris = set(uris)
        self._folder = None if table is None else os.path.dirname(os.path.abspath(table))
        self._table = table
        self._by_last: dict[str, list[str]] = {}
        for uri in sorted(self._uris):
            self._by_last.setdefault(uri.rsplit("/", 1)[-1], []).append(uri)

    def find(self, name: str, row: int | None = None) -> str | None:
        """The URI of the video with a name, or None if it is not in the index.

        Args:
            row: of the table, for the error.

        Raises:
            UsageError: the name is the end of several URIs.
        """
        if name in self._uris:
            return name
        try:
            uri = path_to_uri(source_path(name, relative_to=self._folder))
        except (SourceError, UsageError):
            uri = name
        if uri in self._uris:
            return uri
        tail = name.removeprefix("./")
        ends = [uri for uri in self._by_last.get(tail.rsplit("/", 1)[-1], []) if uri.endswith("/" + tail)]
        if len(ends) > 1:
            where = f"row {row} of {self._table!r} names {name!r}, which" if row is not None else f"{name!r} is what"
            raise UsageError(
                f"{where} {len(ends)} videos of the index end in, "
                f"for example {ends[0]!r} and {ends[1]!r}: write more of the path"
            )
        return ends[0] if ends else None
