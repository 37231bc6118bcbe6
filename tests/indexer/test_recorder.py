"""What a run remembers of the ledger."""

from __future__ import annotations

import pyarrow as pa

from indexer import recorder, schema
from indexer.ingest.encode import empty_row, failure
from indexer.recorder import known_videos


def test_known_videos_say_of_each_video_what_its_row_says(monkeypatch):
    """Also where rows come in several pieces, and a column that repeats itself has gaps."""
    monkeypatch.setattr(recorder, "_ROWS_AT_A_TIME", 3)
    rows = []
    for number in range(10):
        row = empty_row(f"/v/{number}.mp4", size_bytes=number, mtime_ns=10 * number, attempts=number + 1)
        failed = failure("read" if number % 2 else "decode", "Some", "reason")
        done = {"status": schema.INDEXED, "fingerprint": f"blake2b:{number}"}
        rows.append(row | (failed if number % 3 == 0 else done))
    tables = [pa.Table.from_pylist(part, schema=schema.VIDEOS) for part in (rows[:4], rows[4:])]

    known = known_videos(pa.concat_tables(tables))

    assert list(known) == [row["uri"] for row in rows]
    for row in rows:
        for name in ("uri", "size_bytes", "mtime_ns", "status", "fingerprint", "attempts", "error_stage"):
            assert getattr(known[row["uri"]], name) == row[name], name


def test_known_videos_of_an_empty_ledger_are_none():
    assert known_videos(schema.VIDEOS.empty_table()) == {}
