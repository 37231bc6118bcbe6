import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from indexer.errors import UsageError
from indexer.evaluate.questions import BAD_SPAN, EMPTY, NO_VIDEO, NOT_INDEXED, read_questions


@pytest.fixture
def read(tmp_path):
    """`read("a.tsv", "video\\tcaption\\n...")` with three videos in the index, one of them elsewhere."""
    uris = [str(tmp_path / "x" / "a.mp4"), str(tmp_path / "y" / "a.mp4"), "s3://bucket/far/b.mp4"]

    def read(name, text):
        (tmp_path / name).write_text(text)
        return read_questions(str(tmp_path / name), uris)

    read.uris = uris
    return read


def test_videos_are_found_by_uri_relative_path_and_unique_end(read):
    questions = read(
        "q.csv", f"video,caption\n{read.uris[1]},one\nx/a.mp4,two\nb.mp4,three\nfar/b.mp4,four\n./y/a.mp4,five\n"
    )
    assert [caption.video for caption in questions.captions] == [
        read.uris[1], read.uris[0], read.uris[2], read.uris[2], read.uris[1]
    ]  # fmt: skip
    assert not questions.skipped


def test_a_name_that_several_videos_end_in_is_refused_with_its_row(read):
    with pytest.raises(UsageError, match=r"row 2 of .* names 'a\.mp4', which 2 videos"):
        read("q.tsv", "video\tcaption\nb.mp4\tone\na.mp4\ttwo\n")


def test_rows_that_cannot_be_used_are_counted_with_the_first_of_each_kind(read):
    text = (
        "video\tcaption\tstart\tend\nb.mp4\tgood\t1\t2.5\nc.mp4\tx\t\t\nd.mp4\tx\t\t\nb.mp4\t  \t\t\n\tx\t\t\n"
        "b.mp4\tbackwards\t5\t5\nb.mp4\twords\tone\t2\nb.mp4\tnever\t0\tinf\nb.mp4\thalf\t1\t\n"
    )
    questions = read("q.tsv", text)
    assert [(caption.text, caption.spans, caption.row) for caption in questions.captions] == [
        ("good", ((1.0, 2.5),), 1)
    ]
    found = {reason: (rows.count, rows.first) for reason, rows in questions.skipped.items()}
    assert found[NOT_INDEXED] == (2, "row 2 ('c.mp4')")
    assert found[EMPTY] == (1, "row 4 ('b.mp4')")
    assert found[NO_VIDEO] == (1, "row 5")
    assert found[BAD_SPAN][0] == 4
    assert found[BAD_SPAN][1].startswith("row 6: a span must be two numbers of seconds")
    assert found[BAD_SPAN][1].endswith("got '5' and '5'")


def test_spans_of_the_same_caption_are_all_right(read):
    questions = read("q.tsv", "file\tcaption\tstart_s\tend_s\nb.mp4\ta dog\t0\t1\nb.mp4\ta dog\t5\t6\n")
    assert [caption.spans for caption in questions.captions] == [((0.0, 1.0), (5.0, 6.0))]


def test_labels_are_lists_or_separated_by_semicolons(read, tmp_path):
    questions = read("q.tsv", "path\tlabel\nb.mp4\tdog; beach;dog\nx/a.mp4\tcat\nb.mp4\tsea\n")
    assert questions.labels == {read.uris[2]: ("dog", "beach", "sea"), read.uris[0]: ("cat",)}
    table = pa.table({"video": ["b.mp4"], "labels": [["dog", " beach "]], "caption": [None]})
    pq.write_table(table, tmp_path / "q.parquet")
    questions = read_questions(str(tmp_path / "q.parquet"), read.uris)
    assert (questions.labels, questions.captions) == ({read.uris[2]: ("dog", "beach")}, [])


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("q.tsv", "name\tcaption\n", "no column named video, path, uri or file; it has 'name', 'caption'"),
        ("q.tsv", "video\ttext\n", "no column named caption or label"),
        ("q.tsv", "video\tcaption\tstart\n", "has 'start' without its other end"),
        ("q.tsv", "video\tcaption\n", "it has no rows"),
        ("q.tsv", "", "it has none"),
        ("q.tsv", "video\tcaption\nz.mp4\tx\nw.mp4\tx\n", r"2 x video not in the index, first row 1 \('z.mp4'\)"),
        ("q.txt", "x", "must be a .tsv, .csv or .parquet file"),
        ("q.parquet", "x", "not a readable Parquet file"),
    ],
)
def test_a_table_without_questions_is_refused(read, name, text, message):
    with pytest.raises(UsageError, match=message):
        read(name, text)


def test_a_table_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(UsageError, match="No such file"):
        read_questions(str(tmp_path / "none.tsv"), [])
