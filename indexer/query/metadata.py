"""A table of the user's own, joined to the videos of an index by path."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from indexer.errors import UsageError
from indexer.query.video_names import VideoNames
from indexer.storage import location, open_binary

_PATH_COLUMNS = ("path", "video", "file", "uri")


def join_metadata(path: str, uris: Sequence[str], known: Sequence[str]) -> pa.Table:
    """The rows of a table in the order of some videos; nulls for a video that it does not name.

    Args:
        path: a .parquet, .csv or .tsv file with a column path, video, file or uri: URIs, paths seen from the folder of
            the file, or ends of either.
        uris: the V videos.
        known: all videos that the table may name, those too that could not be indexed.

    Returns:
        V rows with the columns of the table.

    Raises:
        UsageError: the file cannot be read, has no such column, or names a video twice, vaguely or one of elsewhere.
        StorageError: its bucket cannot be reached.
    """
    table = _read(path)
    column = next((name for name in _PATH_COLUMNS if name in table.column_names), None)
    if column is None:
        raise UsageError(
            f"the metadata {path!r} needs a column {', '.join(_PATH_COLUMNS[:-1])} or {_PATH_COLUMNS[-1]} that names "
            f"the videos, it has {table.column_names}"
        )
    names = VideoNames(known, path)
    rows: dict[str, int] = {}
    for number, name in enumerate(table[column].to_pylist()):
        uri = names.find(str(name), number + 1)
        if uri is None:
            raise UsageError(
                f"row {number + 1} of the metadata {path!r} names {name!r}, which is no video of the index: "
                "remove the row, or write its path as `videobert search --json` prints it"
            )
        if uri in rows:
            raise UsageError(
                f"rows {rows[uri] + 1} and {number + 1} of the metadata {path!r} name the same video {uri!r}: keep one"
            )
        rows[uri] = number
    found = np.array([rows.get(uri, -1) for uri in uris], np.int64)
    return table.take(pa.array(found, mask=found < 0))


def _read(path: str) -> pa.Table:
    kind = path.lower().rsplit(".", 1)[-1]
    if kind not in ("parquet", "csv", "tsv"):
        raise UsageError(f"the metadata must be a .parquet, .csv or .tsv file, got {path!r}")
    try:
        with open_binary(location(path)) as file:
            content = pa.BufferReader(file.read())
        if kind == "parquet":
            return pq.read_table(content)
        options = pyarrow.csv.ParseOptions(delimiter="\t" if kind == "tsv" else ",")
        return pyarrow.csv.read_csv(content, parse_options=options)
    except (OSError, pa.ArrowException) as error:
        detail = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise UsageError(f"cannot read the metadata {path!r}: {detail}") from error
