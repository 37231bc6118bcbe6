from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from indexer.errors import SourceError
from indexer.ingest.manifests import is_manifest, read_manifest


@pytest.fixture
def manifest(tmp_path):
    def make(name, content):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return str(path)

    return make


def test_text_has_one_path_a_line(manifest):
    path = manifest("m.txt", "\ufeffa.mp4\r\n# a remark\n\n  b c.mp4  \n  # another\nd#e.mp4")

    assert list(read_manifest(path)) == ["a.mp4", "b c.mp4", "d#e.mp4"]


def test_text_keeps_names_that_are_not_utf8(manifest):
    assert list(read_manifest(manifest("m.txt", b"caf\xe9.mp4\n"))) == ["caf\udce9.mp4"]


@pytest.mark.parametrize("column", ["path", "uri", "video", "file", "Path", " URI "])
def test_csv_is_read_by_the_name_of_its_column(manifest, column):
    assert list(read_manifest(manifest("m.csv", f'id,{column},note\n1,a.mp4,x\n2,"b, c.mp4",y\n3,,z\n'))) == [
        "a.mp4",
        "b, c.mp4",
    ]


@pytest.mark.parametrize(("name", "mark"), [("m.tsv", "\t"), ("m.csv", ";"), ("m.csv", "\t")])
def test_other_delimiters_are_recognised(manifest, name, mark):
    assert list(read_manifest(manifest(name, f"id{mark}path\n1{mark}a,b.mp4\n"))) == ["a,b.mp4"]


def test_first_of_the_known_columns_counts(manifest):
    assert list(read_manifest(manifest("m.csv", "video,path\nv,p\n"))) == ["p"]


def test_short_rows_are_left_out(manifest):
    assert list(read_manifest(manifest("m.csv", "id,path\n1\n2,b.mp4\n"))) == ["b.mp4"]


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.dictionary(pa.int32(), pa.string())])
def test_parquet_is_read(tmp_path, kind):
    table = pa.table({"id": [1, 2, 3], "uri": pa.array(["a.mp4", None, "b.mp4"]).cast(kind)})
    pq.write_table(table, tmp_path / "m.parquet")

    assert list(read_manifest(str(tmp_path / "m.parquet"))) == ["a.mp4", "b.mp4"]


def test_parquet_column_that_is_not_text_raises(tmp_path):
    pq.write_table(pa.table({"path": [1, 2]}), tmp_path / "m.parquet")

    with pytest.raises(SourceError, match="int64, not text"):
        list(read_manifest(str(tmp_path / "m.parquet")))


@pytest.mark.parametrize(
    ("name", "content", "text"),
    [
        ("m.txt", "", "lists no video"),
        ("m.txt", "# only a remark\n", "lists no video"),
        ("m.csv", "", "no column named path, uri, video or file; it has none"),
        ("m.csv", "id,name\n1,a.mp4\n", "it has 'id', 'name'"),
        ("m.csv", "path\n", "lists no video"),
        ("m.csv", "path\n" + "x" * 200_000, "field larger"),
        ("m.parquet", "no parquet", "not a readable Parquet file"),
    ],
)
def test_unusable_manifest_raises_and_says_why(manifest, name, content, text):
    with pytest.raises(SourceError, match=text) as caught:
        list(read_manifest(manifest(name, content)))

    assert "\n" not in str(caught.value)


def test_missing_manifest_raises(tmp_path):
    with pytest.raises(SourceError, match="cannot read the manifest"):
        list(read_manifest(str(tmp_path / "none.csv")))


def test_manifests_are_known_by_extension():
    assert is_manifest("a/M.CSV")
    assert not is_manifest("a.mp4")
