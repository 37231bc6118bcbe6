import csv
import io

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from indexer.errors import UsageError
from indexer.training.records import read_collection


@pytest.fixture
def table(tmp_path):
    """Writes rows as a .csv, .tsv or .parquet file and returns its path."""

    def write(name, rows):
        path = tmp_path / name
        if name.endswith(".parquet"):
            pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=2)
        else:
            text = io.StringIO()
            writer = csv.DictWriter(text, list(rows[0]), delimiter="\t" if name.endswith(".tsv") else ",")
            writer.writeheader()
            writer.writerows(rows)
            path.write_text(text.getvalue())
        return str(path)

    return write


@pytest.mark.parametrize("name", ["rows.csv", "rows.tsv", "rows.parquet"])
def test_table_with_captions_is_captions_with_paths_beside_it(table, tmp_path, name):
    found = read_collection(table(name, [{"path": "sub/a.jpg", "caption": " a red  square; big "}]))
    assert found.task == "captions"
    assert [(record.path, record.texts) for record in found.records] == [
        (str(tmp_path / "sub/a.jpg"), ("a red square; big",))
    ]


@pytest.mark.parametrize("name", ["rows.csv", "rows.parquet"])
def test_table_with_labels_is_classes(table, name):
    found = read_collection(table(name, [{"video": "/a.mp4", "label": "one"}, {"video": "/b.mp4", "label": "two"}]))
    assert (found.task, found.several) == ("classes", False)
    assert [record.texts for record in found.records] == [("one",), ("two",)]


@pytest.mark.parametrize(
    ("name", "labels"), [("rows.csv", "dog; cat;dog;"), ("rows.parquet", ["dog", "cat", "dog", None, " "])]
)
def test_table_with_several_labels_in_a_row_has_several(table, name, labels):
    found = read_collection(table(name, [{"path": "/a.jpg", "labels": labels}]))
    assert found.several
    assert found.records[0].texts == ("dog", "cat")


def test_table_with_lists_of_one_label_has_several(table):
    assert read_collection(table("rows.parquet", [{"path": "/a.jpg", "labels": ["dog"]}])).several


def test_table_with_both_is_what_is_asked_for(table):
    path = table("rows.csv", [{"path": "a.jpg", "caption": "a dog", "label": "dog"}])
    assert read_collection(path).records[0].texts == ("a dog",)
    assert read_collection(path, "classes").records[0].texts == ("dog",)


@pytest.mark.parametrize("wrap", [lambda data: data, lambda data: {"bytes": data, "path": "x.jpg"}])
def test_table_of_images_gives_the_bytes_of_each_row(table, wrap):
    column = "jpeg" if wrap(b"") == b"" else "image"
    rows = [{column: wrap(b"image %d" % i), "captions": [f"number {i}", "again"]} for i in range(5)]
    found = read_collection(table("rows.parquet", rows))
    order = [3, 0, 4, 1, 2]
    assert [found.records[i].read() for i in order] == [b"image %d" % i for i in order]
    assert found.records[2].texts == ("number 2", "again")


def test_rows_without_file_or_text_are_left_out_by_name(table):
    rows = [
        {"path": "a.jpg", "caption": "a dog"},
        {"path": "b.jpg", "caption": "  "},
        {"path": "", "caption": "a cat"},
        {"path": "https://x/y.jpg", "caption": "a cat"},
    ]
    found = read_collection(table("rows.csv", rows))
    assert [record.name for record in found.records] == ["row 1 ('a.jpg')"]
    assert [problem.name for problem in found.problems] == ["row 2 ('b.jpg')", "row 3", "row 4"]
    assert found.problems[0].reason == "the column 'caption' is empty"
    assert "names no file" in found.problems[1].reason


def test_folder_has_the_class_of_each_file(tmp_path):
    for name in ("dog/a.jpg", "dog/deep/b.mp4", "cat/c.png", "cat/notes.txt", ".hidden/d.jpg", "e.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    found = read_collection(str(tmp_path))
    assert [(record.name, record.texts) for record in found.records] == [
        ("cat/c.png", ("cat",)),
        ("dog/a.jpg", ("dog",)),
        ("dog/deep/b.mp4", ("dog",)),
    ]


@pytest.mark.parametrize(
    ("rows", "text"),
    [
        ([{"file_name": "a", "caption": "b"}], "no column named path, jpeg, .* it has 'file_name', 'caption'"),
        ([{"path": "a", "words": "b"}], "no column named captions, caption, labels or label; it has 'path', 'words'"),
        ([{"path": "a", "caption": ""}], r"nothing to train on: 1 rows were left out; the first: row 1 \('a'\)"),
    ],
)
def test_table_that_cannot_be_used_is_said_to_be_so(table, rows, text):
    with pytest.raises(UsageError, match=text):
        read_collection(table("rows.csv", rows))


def test_captions_are_asked_for_where_there_is_no_such_column(table):
    with pytest.raises(UsageError, match="no column named captions or caption"):
        read_collection(table("rows.csv", [{"path": "a", "label": "b"}]), "captions")


@pytest.mark.parametrize(
    ("name", "data", "text"),
    [
        ("x.parquet", b"no parquet", "must be a Parquet file"),
        ("x.csv", b"path,caption\n\xff\xfe,b\n", "save it as UTF-8"),
        ("x.json", b"{}", r"ends in '\.json'"),
        ("x.csv", b"", "no column named"),
    ],
)
def test_file_that_is_no_table_is_said_to_be_so(tmp_path, name, data, text):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(UsageError, match=text):
        read_collection(str(tmp_path / name))


def test_data_that_is_not_there_or_empty_is_said_to_be_so(tmp_path):
    with pytest.raises(UsageError, match="does not exist"):
        read_collection(str(tmp_path / "nothing.csv"))
    with pytest.raises(UsageError, match="holds nothing to train on"):
        read_collection(str(tmp_path))
    with pytest.raises(UsageError, match="captions come in a table"):
        read_collection(str(tmp_path), "captions")
