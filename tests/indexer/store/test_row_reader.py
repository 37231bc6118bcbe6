import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from indexer.errors import IndexFormatError
from indexer.store import row_reader
from indexer.store.row_reader import RowReader


@pytest.fixture
def table():
    numbers = np.random.default_rng(0).permutation(1_000)
    return pa.table({"number": numbers, "name": [f"name {number}" for number in numbers]})


@pytest.fixture
def file(table, tmp_path):
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=128)
    return str(tmp_path / "a.parquet")


@pytest.mark.parametrize("keep", [False, True])
def test_rows_are_those_of_the_table_in_the_order_asked_for_again_and_again(file, table, keep):
    reader, chance = RowReader(), np.random.default_rng(1)
    for _ in range(30):
        rows = chance.integers(0, 1_000, chance.integers(1, 20))
        columns = [["number"], ["name"], ["name", "number"]][chance.integers(3)]
        assert reader.read(file, rows, columns, keep=keep).equals(table.select(columns).take(pa.array(rows)))


def test_what_is_kept_is_not_read_again_and_the_rest_is(file, table, tmp_path):
    reader, rows = RowReader(), np.array([130, 5])
    kept = reader.read(file, rows, ["name"], keep=True)
    (tmp_path / "a.parquet").unlink()
    assert reader.read(file, rows[::-1], ["name"], keep=True)["name"].to_pylist() == kept["name"].to_pylist()[::-1]
    for other_rows, columns, keep in (
        [rows, ["number"], True],
        [np.array([999]), ["name"], True],
        [rows, ["name"], False],
    ):
        with pytest.raises(IndexFormatError):
            reader.read(file, other_rows, columns, keep=keep)


def test_memory_is_bounded(file, table, monkeypatch):
    monkeypatch.setattr(row_reader, "_GROUP_BYTES", 3_000)
    monkeypatch.setattr(row_reader, "_FOOTER_BYTES", 0)
    reader = RowReader()
    for start in range(0, 1_000, 50):
        rows = np.arange(start, start + 50)
        assert (
            reader.read(file, rows, ["number"], keep=True)["number"].to_pylist()
            == table["number"][start : start + 50].to_pylist()
        )
        assert reader._groups.num_bytes <= 3_000
        assert reader._footers.num_bytes == 0
