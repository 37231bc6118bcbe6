"""SQL sees the visible rows and nothing else of this machine. The oracle is DuckDB over the exported file."""

from __future__ import annotations

import duckdb
import pytest

from indexer.errors import UsageError
from indexer.export import export_moments
from indexer.query.video_index import VideoIndex
from indexer.store.index import IndexStore


@pytest.fixture(scope="module")
def oracle(colours, tmp_path_factory):
    """Asks DuckDB for the same over the export, and the ledger's indexed rows."""
    exported = tmp_path_factory.mktemp("export") / "moments.parquet"
    export_moments(IndexStore.open(colours.path), exported)
    with duckdb.connect() as connection:
        connection.sql(f"CREATE VIEW moments AS FROM '{exported}'")
        connection.register("videos", colours.snapshot.videos)
        yield lambda query: connection.sql(query).to_arrow_table().to_pylist()


@pytest.mark.parametrize(
    "query",
    [
        "SELECT video, start_s, end_s, duration_s FROM moments ORDER BY segment_id",
        "SELECT count(*) FROM moments",
        "SELECT COUNT(DISTINCT Video) AS n FROM MOMENTS WHERE Start_S > 5",
        "SELECT uri, sum(end_s - start_s) AS s FROM videos v JOIN moments m ON m.video = v.uri GROUP BY ALL ORDER BY 1",
        "SELECT l.label, max(l.score) FROM (SELECT unnest(labels) AS l FROM moments) GROUP BY 1 ORDER BY 1",
        "WITH m AS (SELECT * EXCLUDE (thumbnail) FROM moments) SELECT video FROM m ORDER BY ALL",
        "FROM videos SELECT * ORDER BY uri",
        "SELECT m FROM moments m ORDER BY m.segment_id",
        "SELECT moments FROM moments ORDER BY moments.segment_id",
        "SELECT COLUMNS('.*_s') FROM moments ORDER BY ALL",
        "SELECT count(*) FROM moments NATURAL JOIN videos",
        "SELECT count(*) FROM moments a JOIN moments b USING (video, segment_id)",
        "SELECT round(list_dot_product(embedding, embedding), 3) AS one FROM moments",
        "SELECT octet_length(thumbnail) FROM moments ORDER BY 1",
        "SELECT count(*) FROM moments PIVOT (count(*) FOR num_frames IN (1, 2, 3))",
        "DESCRIBE moments",
    ],
)
def test_query_answers_what_duckdb_answers_over_the_export(colours, oracle, query):
    assert colours.sql(query).to_arrow().to_pylist() == oracle(query)


def test_only_columns_that_are_named_are_read(colours, monkeypatch):
    read = []
    real = type(colours.snapshot).read_file_by_file

    def note(self, columns):
        read.extend(columns)
        return real(self, columns)

    monkeypatch.setattr(type(colours.snapshot), "read_file_by_file", note)
    colours.sql("SELECT v.height FROM videos v")
    assert read == []
    colours.sql("SELECT max(end_s) AS longest FROM moments ORDER BY longest")
    assert read == ["end_s"]


def test_rows_that_are_not_visible_are_not_seen(colour_index, colour_videos, run_index, tmp_path):
    (colour_videos / "red.mp4").write_bytes(b"broken")
    run_index(colour_videos)
    assert colour_index.sql("SELECT count(*) AS n FROM videos").to_pandas()["n"].tolist() == [3]
    index = VideoIndex.open(tmp_path / "index")
    assert index.sql("SELECT count(*) AS n FROM videos").to_pandas()["n"].tolist() == [2]
    assert index.sql("SELECT count(*) AS n FROM moments").to_pandas()["n"].tolist() == [4]


@pytest.mark.parametrize(
    ("query", "error"),
    [
        ("SELEC 1", 'syntax error at or near "SELEC"'),
        ("", "must be one SELECT over the tables moments and videos, got ''"),
        ("SELECT 1; SELECT 2", "must be one SELECT"),
        ("SELECT nope FROM moments", 'column "nope" not found'),
        ("SELECT 1 FROM nowhere", "Table with name nowhere does not exist"),
        ("SELECT '\ud800'", "surrogate"),
        ("x" * 100_001, "at most 100000 characters, got 100001"),
        ("DROP TABLE moments", "must be one SELECT"),
        ("INSERT INTO moments SELECT * FROM moments", "must be one SELECT"),
        ("SET threads = 1", "must be one SELECT"),
        ("INSTALL httpfs", "must be one SELECT"),
        ("SELECT CAST(video AS INTEGER) FROM moments", "Could not convert"),
    ],
)
def test_wrong_sql_is_one_line(colours, query, error):
    with pytest.raises(UsageError) as found:
        colours.sql(query)
    assert error in str(found.value)
    assert "\n" not in str(found.value)


@pytest.mark.parametrize(
    "query",
    [
        "SELECT * FROM read_text('{secret}')",
        "SELECT * FROM '{secret}'",
        "SELECT * FROM read_csv('{secret}')",
        "SELECT * FROM glob('{folder}/*')",
        "SELECT * FROM secrets_of_python",
        "COPY moments TO '{folder}/written.csv'",
        "ATTACH '{folder}/written.db'",
        "EXPORT DATABASE '{folder}/written'",
    ],
)
def test_files_and_variables_are_out_of_reach(colours, tmp_path, query):
    secrets_of_python = duckdb.sql("SELECT 'SECRET'").to_arrow_table()
    assert secrets_of_python.num_rows == 1
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    (folder / "secret.csv").write_text("SECRET,1\n")
    with pytest.raises(UsageError) as found:
        colours.sql(query.format(secret=folder / "secret.csv", folder=folder))
    assert "SECRET" not in str(found.value)
    assert sorted(path.name for path in folder.iterdir()) == ["secret.csv"]


def test_result_is_shown_escaped_and_cut(colours):
    result = colours.sql("SELECT '<script>' AS \"<b>\", repeat('x', 1000) AS long, 'ab'::BLOB AS b FROM range(60)")
    shown = result._repr_html_()
    assert "<th>&lt;b&gt;</th>" in shown
    assert "<td>&lt;script&gt;</td>" in shown
    assert "<td>2 bytes</td>" in shown
    assert "x" * 121 not in shown
    assert shown.count("<tr>") == 51
    assert "10 more rows" in shown
    assert (len(result), repr(result)) == (60, "SqlResult(60 rows: <b>, long, b)")


def test_empty_index_has_empty_tables(copied_colours):
    store = IndexStore.open(copied_colours)
    store.ledger.remove(store.ledger.snapshot().videos["video_id"].to_pylist())
    index = VideoIndex.open(copied_colours)
    assert len(index.sql("SELECT * FROM moments JOIN videos ON video = uri")) == 0
