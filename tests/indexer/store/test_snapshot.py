import numpy as np
import pytest

from indexer import schema
from indexer.errors import IndexFormatError
from indexer.store.vectors import list_manifests


def brute_force(maker, query, k):
    """Oracle: all vectors that should be visible, compared one by one."""
    scores = {key: float(vector @ query) for key, vector in maker.vectors.items()}
    return sorted(scores, key=lambda key: -scores[key])[:k]


def found(snapshot, query, k):
    scores, rows = snapshot.search(query[None], k)
    uris = snapshot.videos["uri"].to_pylist()
    keys = [(uris[snapshot.rows.video_rows[row]], float(snapshot.rows.start_s[row])) for row in rows[0]]
    assert (np.diff(scores[0]) <= 0).all()
    return keys


@pytest.mark.parametrize("built", [False, True])
def test_search_equals_brute_force(maker, built):
    if built:
        maker.store.build_vectors()
    snapshot = maker.store.snapshot()
    for _ in range(5):
        query = maker.unit()
        assert found(snapshot, query, 4) == brute_force(maker, query, 4)


def test_search_covers_what_was_added_after_the_vectors(maker):
    maker.store.build_vectors()
    maker.add("/v/d.mp4", batch_id="b2")
    snapshot = maker.store.snapshot()
    assert (snapshot.coverage.covered, snapshot.coverage.uncovered) == (6, 2)
    query = maker.vectors["/v/d.mp4", 10.0]
    assert found(snapshot, query, 8) == brute_force(maker, query, 8)


def test_search_forgets_a_removed_video_at_once(maker):
    maker.store.build_vectors()
    maker.remove("/v/a.mp4")
    gone = maker.vectors.pop(("/v/a.mp4", 0.0))
    del maker.vectors["/v/a.mp4", 10.0]
    snapshot = maker.store.snapshot()
    assert snapshot.coverage.tombstones == 2
    assert found(snapshot, gone, 10) == brute_force(maker, gone, 10)


def test_a_replaced_video_is_found_by_its_new_vectors_only(maker):
    maker.store.build_vectors()
    old = maker.vectors["/v/a.mp4", 0.0]
    maker.add("/v/a.mp4", batch_id="b7")
    snapshot = maker.store.snapshot()
    assert snapshot.num_segments == 6
    assert found(snapshot, old, 6) == brute_force(maker, old, 6)


def test_a_batch_without_its_ledger_commit_is_invisible(maker):
    version = maker.store.ledger.version()
    maker.add("/v/d.mp4", batch_id="b2")
    snapshot = maker.store.snapshot(version)
    assert snapshot.num_segments == 6
    assert schema.segment_id("/v/d.mp4", 0.0) not in snapshot.rows.segment_ids


def test_an_open_snapshot_does_not_change(maker):
    snapshot = maker.store.snapshot()
    maker.remove("/v/a.mp4")
    assert snapshot.num_segments == 6
    assert maker.store.snapshot().num_segments == 4


def test_read_gives_rows_in_the_order_asked_for(maker):
    snapshot = maker.store.snapshot()
    rows = [5, 0, 3, 0]
    table = snapshot.read(rows, ["segment_id", "thumbnail"])
    assert table["segment_id"].to_pylist() == [snapshot.rows.segment_ids[row] for row in rows]
    uris = snapshot.videos["uri"].to_pylist()
    expected = [f"jpeg {uris[snapshot.rows.video_rows[r]]} {snapshot.rows.start_s[r]}".encode() for r in rows]
    assert table["thumbnail"].to_pylist() == expected
    assert snapshot.read([], ["thumbnail"]).num_rows == 0


def test_embeddings_come_back_as_written(maker):
    snapshot = maker.store.snapshot()
    uris = snapshot.videos["uri"].to_pylist()
    for row, vector in enumerate(snapshot.embeddings()):
        key = uris[snapshot.rows.video_rows[row]], float(snapshot.rows.start_s[row])
        np.testing.assert_array_equal(vector, maker.vectors[key])
    np.testing.assert_array_equal(snapshot.embeddings(np.array([4, 1])), snapshot.embeddings()[[4, 1]])


def test_more_than_there_is_can_be_asked_for(maker):
    scores, rows = maker.store.snapshot().search(maker.unit()[None], 100)
    assert sorted(rows[0]) == list(range(6))
    assert scores.shape == (1, 6)


def test_an_empty_index_finds_nothing(make_store):
    maker = make_store("empty")
    assert maker.store.build_vectors() is None
    snapshot = maker.store.snapshot()
    assert snapshot.search(maker.unit()[None], 3)[1].shape == (1, 0)


@pytest.mark.parametrize("suffix", [".faiss", ".rows.parquet"])
@pytest.mark.parametrize("damage", ["flip", "cut", "delete"])
def test_a_damaged_vector_file_is_noticed_and_search_stays_right(maker, suffix, damage):
    manifest = maker.store.build_vectors()
    path = maker.store.vectors_folder / f"{manifest.name}{suffix}"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.unlink()
    if damage != "delete":
        path.write_bytes(data if damage == "flip" else data[:-7])
    snapshot = maker.store.snapshot()
    query = maker.unit()
    assert found(snapshot, query, 3) == brute_force(maker, query, 3)
    assert snapshot.coverage.kind == "none"
    assert manifest.name in snapshot.coverage.damaged[0]
    assert maker.store.build_vectors() is not None, "a damaged file is rebuilt"


def test_a_damaged_segment_file_is_reported(maker):
    file = maker.store.segments.files()[0]
    with open(file, "r+b") as stream:
        stream.truncate(100)
    with pytest.raises(IndexFormatError, match="cannot be read"):
        maker.store.snapshot()


def test_vectors_are_built_only_when_needed_and_old_ones_go(maker):
    assert maker.store.build_vectors() is not None
    assert maker.store.build_vectors() is None
    for i in range(3):
        maker.add(f"/v/new{i}.mp4", batch_id=f"n{i}")
        assert maker.store.build_vectors() is not None
    assert len(list(list_manifests(maker.store.vectors_folder))) == 2
