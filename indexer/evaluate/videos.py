"""Which video of an index a table means."""

from __future__ import annotations

import os
from collections.abc import Iterable

from indexer.errors import SourceError, UsageError
from indexer.ingest.paths import path_to_uri, source_path


class VideoNames:
    """Finds videos by URI, by path seen from the table's folder, or by the end of the URI.

    Args:
        uris: of the videos in the index.
        table: path of the table that names them.
    """

    def __init__(self, uris: Iterable[str], table: str) -> None:
        self._uris = set(uris)
        self._folder = os.path.dirname(os.path.abspath(table))
        self._table = table
        self._by_last: dict[str, list[str]] = {}
        for uri in sorted(self._uris):
            self._by_last.setdefault(uri.rsplit("/", 1)[-1], []).append(uri)

    def find(self, name: str, row: int) -> str | None:
        """The URI of the video that is named in a row, or None if it is not in the index.

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
            raise UsageError(
                f"row {row} of {self._table!r} names {name!r}, which {len(ends)} videos of the index end in, "
                f"for example {ends[0]!r} and {ends[1]!r}: write more of the path"
            )
        return ends[0] if ends else None
