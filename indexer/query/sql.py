"""SQL over the visible moments and videos of one snapshot, by DuckDB. It reads no file and writes none.

    moments    one row a moment with the facts of its video: the columns of `export`
    videos     one row an indexed video: the columns of the ledger

Both are filled when a query is asked, with the columns that it names only: the vectors and pictures of a large index do
not fit into memory. `SELECT *` names all of them.
"""

from __future__ import annotations

import html
import json
from collections.abc import Iterator
from typing import Any

import duckdb
import pyarrow as pa

from indexer import schema
from indexer.errors import UsageError
from indexer.store.joined import SCHEMA, joined_moments
from indexer.store.snapshot import Snapshot

# Set once and locked: nothing outside this process can be read, written or loaded, and no setting changed.
_SETTINGS: dict[str, str | bool | int | float | list[str]] = {
    "enable_external_access": "false",
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
    "temp_directory": "",
    "lock_configuration": "true",
}
# Kinds of nodes that may use a column without naming it: `*`, DESCRIBE and SUMMARIZE, NATURAL JOIN, PIVOT.
_USE_ALL = {"STAR", "SHOW_REF", "NATURAL", "PIVOT"}
_SCHEMAS = {"moments": SCHEMA, "videos": schema.VIDEOS}
_MAX_QUERY_CHARS = 100_000
_SHOWN_ROWS, _SHOWN_CHARS = 50, 120


class SqlResult:
    """Rows that a query returned.

    Attributes:
        table: the rows as an Arrow table.
    """

    def __init__(self, table: pa.Table) -> None:
        self.table = table

    def __len__(self) -> int:
        return self.table.num_rows

    def __repr__(self) -> str:
        return f"SqlResult({self.table.num_rows} rows: {', '.join(self.table.column_names)})"

    def to_arrow(self) -> pa.Table:
        return self.table

    def to_pandas(self) -> Any:
        """As `to_arrow`, a pandas DataFrame."""
        return self.table.to_pandas()

    def _repr_html_(self) -> str:
        head = "".join(f"<th>{html.escape(name)}</th>" for name in self.table.column_names)
        rows = zip(*(column.to_pylist() for column in self.table.slice(0, _SHOWN_ROWS).columns), strict=True)
        body = "".join("<tr>" + "".join(f"<td>{_cell(value)}</td>" for value in row) + "</tr>" for row in rows)
        more = self.table.num_rows - _SHOWN_ROWS
        note = f"<p>… and {more:,} more rows</p>" if more > 0 else ""
        return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{note}"


def run_sql(query: str, snapshot: Snapshot) -> SqlResult:
    """Answers one SELECT (also FROM, WITH, VALUES, DESCRIBE or SUMMARIZE) of DuckDB's SQL.

    Raises:
        UsageError: it is too long, no single SELECT, wrong, or asks for a file.
    """
    if len(query) > _MAX_QUERY_CHARS:
        raise UsageError(f"the SQL must be at most {_MAX_QUERY_CHARS} characters, got {len(query)}: shorten it")
    with duckdb.connect(config=dict(_SETTINGS)) as connection:
        try:
            names = _names_in(query, connection)
            for table, table_schema in _SCHEMAS.items():
                connection.register(table, table_schema.empty_table())
            connection.sql(query)  # what is wrong with it is said before anything is read
            try:
                return _answer(query, snapshot, names, connection)
            except duckdb.BinderException:  # it does use a column that it does not name
                return _answer(query, snapshot, None, connection)
        except (duckdb.Error, UnicodeError) as error:
            raise UsageError(f"the SQL cannot be answered: {' '.join(str(error).split())}") from error


def _names_in(query: str, connection: duckdb.DuckDBPyConnection) -> set[str] | None:
    """All names in a query, in lower case; None where it may use columns that it does not name."""
    found = connection.execute("SELECT json_serialize_sql(?)", [query]).fetchall()
    parsed = json.loads(found[0][0])
    if parsed.get("error_type") in ("parser", "syntax error"):
        raise UsageError(f"the SQL cannot be answered: {' '.join(parsed['error_message'].split())}")
    if parsed.get("error") or len(parsed["statements"]) != 1:
        raise UsageError(f"the SQL must be one SELECT over the tables moments and videos, got {query[:80]!r}")
    names: set[str] = set()
    whole_rows: set[str] = set(_SCHEMAS)
    for node in _nodes(parsed):
        names |= {text.lower() for value in node.values() for text in _texts(value)}
        if node.get("type") == "BASE_TABLE":
            whole_rows.add(node.get("alias", "").lower())
    singles = {node["column_names"][0].lower() for node in _nodes(parsed) if len(node.get("column_names", ())) == 1}
    uses_all = any(kind in _USE_ALL for node in _nodes(parsed) for kind in (node.get("type"), node.get("ref_type")))
    return None if uses_all or singles & whole_rows else names


def _nodes(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        yield value
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _nodes(inner)


def _texts(value: Any) -> Iterator[str]:
    yield from (text for text in (value if isinstance(value, list) else [value]) if isinstance(text, str))


def _answer(query: str, snapshot: Snapshot, names: set[str] | None, connection: duckdb.DuckDBPyConnection) -> SqlResult:
    """Fills the tables with the columns of these names, all if None, and asks."""
    chosen = {
        table: [name for name in columns.names if names is None or name in names] or columns.names[:1]
        for table, columns in _SCHEMAS.items()
    }
    parts = list(joined_moments(snapshot, chosen["moments"])) if names is None or "moments" in names else []
    empty = pa.schema([SCHEMA.field(name) for name in chosen["moments"]]).empty_table()
    connection.register("moments", pa.concat_tables([empty, *parts]))
    connection.register("videos", snapshot.videos.select(chosen["videos"]))
    return SqlResult(connection.sql(query).to_arrow_table())


def _cell(value: Any) -> str:
    text = f"{len(value):,} bytes" if isinstance(value, bytes) else str(value)
    return html.escape(text if len(text) <= _SHOWN_CHARS else f"{text[:_SHOWN_CHARS]}…")
