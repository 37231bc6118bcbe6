"""Search in an index whose vector file is approximate: complete right after every commit and removal."""

import numpy as np
import pyarrow as pa
import pytest

from indexer import schema
from indexer.store.compact import compact
from indexer.store.report import describe
from indexer.store.segments_table import write_segment_file
from indexer.store.vectors import IVF, list_manifests
from indexer.store.verify import repair_vectors, verify

NUM_VIDEOS = 400


def count_as_large(monkeypatch):
    monkeypatch.setattr("indexer.store.vectors.FLAT_UP_TO_BYTES", 0)
    monkeypatch.setattr("indexer.store.vectors._GATHER_UP_TO_BYTES", 0)


@pytest.fixture(scope="module")
def large_once(make_once, row_of):
    maker = make_once()
    add_many(maker, row_of, [f"/v/{number}.mp4" for number in range(NUM_VIDEOS)], "b0")
    with pytest.MonkeyPatch.context() as monkeypatch:
        count_as_large(monkeypatch)
        maker.store.build_vectors()
    return maker


@pytest.fixture
def large(large_once, tmp_path, monkeypatch):
    """An index of 800 moments that counts as a large one."""
    count_as_large(monkeypatch)
    return large_once.copied_to(tmp_path / "index")


def add_many(maker, row_of, uris, batch_id):
    ids = np.repeat([schema.video_id(uri) for uri in uris], 2)
    start_s = np.tile([0.0, 10.0], len(uris))
    vectors = np.stack([maker.unit() for _ in ids])
    columns = {
        "segment_id": [schema.segment_id(uri, start) for uri in uris for start in (0.0, 10.0)],
        "video_id": ids,
        "batch_id": [batch_id] * len(ids),
        "start_s": start_s,
        "end_s": start_s + 10,
        "embedding": list(vectors),
        "num_frames": [3] * len(ids),
        "frame_features": [np.zeros((3, 1, 4), "<f2").tobytes()] * len(ids),
    }
    table = pa.table(
        [
            pa.array(columns[f.name]).cast(f.type) if f.name in columns else pa.nulls(len(ids), f.type)
            for f in schema.SEGMENTS
        ],
        schema=schema.SEGMENTS,
    )
    rows = pa.Table.from_pylist([row_of(uri, batch_id=batch_id) for uri in uris], schema=schema.VIDEOS)
    maker.store.commit(rows, [write_segment_file(maker.store.segments.folder, table)])


def assert_right(maker, allowed=None, k=10, least_recall=0.9):
    snapshot = maker.store.snapshot()
    queries = np.stack([maker.unit() for _ in range(40)])
    mask = None if allowed is None else allowed(snapshot)
    scores, rows = snapshot.search(queries, k, mask)
    exact = queries @ snapshot.embeddings().T
    np.testing.assert_allclose(scores, np.take_along_axis(exact, rows, 1), atol=1e-5)
    if mask is not None:
        assert mask[rows].all()
        exact[:, ~mask] = -np.inf
    wanted = np.argsort(-exact, axis=1)[:, : rows.shape[1]]
    assert rows.shape[1] == min(k, snapshot.num_segments if mask is None else mask.sum())
    assert all(len(set(one)) == len(one) for one in rows.tolist())
    assert np.mean([np.isin(a, b).mean() for a, b in zip(wanted, rows, strict=True)]) >= least_recall
    return snapshot


def some_videos(share):
    def allowed(snapshot):
        return (np.random.default_rng(5).random(len(snapshot.videos)) < share)[snapshot.rows.video_rows]

    return allowed


@pytest.mark.parametrize("share", [0.5, 0.1, 0.01])
@pytest.mark.parametrize("changed", [False, True])
def test_filters_are_complete(large, row_of, share, changed):
    if changed:
        large.store.ledger.remove([schema.video_id(f"/v/{number}.mp4") for number in range(0, 40)])
        add_many(large, row_of, [f"/v/{number}.mp4" for number in range(390, 430)], "b1")
    assert_right(large, some_videos(share))


def test_a_commit_and_a_removal_are_seen_at_once(large, row_of):
    large.store.ledger.remove([schema.video_id(f"/v/{number}.mp4") for number in range(0, 60)])
    add_many(large, row_of, [f"/v/{number}.mp4" for number in range(380, 420)], "b1")
    coverage = assert_right(large).coverage
    assert (coverage.covered, coverage.uncovered, coverage.tombstones) == (640, 80, 160)


def test_all_can_be_asked_for(large):
    assert_right(large, k=5000, least_recall=1.0)
    assert_right(large, some_videos(0.3), k=5000, least_recall=1.0)


def test_vectors_come_back_as_written_from_file_and_tables(large, row_of):
    add_many(large, row_of, ["/v/new.mp4"], "b1")
    snapshot = large.store.snapshot()
    rows = np.random.default_rng(0).permutation(snapshot.num_segments)
    np.testing.assert_array_equal(snapshot.vectors_of(rows), snapshot.embeddings()[rows])


def test_a_run_leaves_the_file_until_enough_has_changed_and_compaction_does_not(large, row_of):
    add_many(large, row_of, ["/v/new.mp4"], "b1")
    assert large.store.build_vectors(if_due=True) is None
    assert large.store.snapshot().coverage.uncovered == 2
    compact(large.store)
    assert large.store.snapshot().coverage.uncovered == 0
    add_many(large, row_of, [f"/v/more{number}.mp4" for number in range(12)], "b2")
    assert large.store.build_vectors(if_due=True) is not None
    large.store.ledger.remove([schema.video_id(f"/v/{number}.mp4") for number in range(60)])
    assert large.store.build_vectors(if_due=True) is not None
    assert large.store.snapshot().coverage.tombstones == 0


def test_an_index_that_has_outgrown_its_kind_is_built_anew_by_a_run(maker, monkeypatch):
    assert maker.store.build_vectors(if_due=True).kind == "flat"
    maker.add("/v/d.mp4", batch_id="b2")
    monkeypatch.setattr("indexer.store.vectors.FLAT_UP_TO_BYTES", 0)
    assert maker.store.build_vectors(if_due=True).kind == IVF


def test_info_says_how_well_the_file_does(large):
    vectors = describe(large.store)["vectors"]
    assert vectors["kind"] == IVF
    assert 0.8 < vectors["recall_at_10"] <= 1
    assert vectors["recall_measured_with"] == "moments", "no model is installed that made this index"
    assert 8 < vectors["bytes_per_vector"] < 200


def test_info_of_a_small_index_says_that_it_is_exact(maker):
    assert describe(maker.store)["vectors"]["recall_at_10"] is None, "there is no vector file yet"
    maker.store.build_vectors()
    vectors = describe(maker.store)["vectors"]
    assert (vectors["kind"], vectors["recall_at_10"], vectors["bytes_per_vector"]) == ("flat", 1.0, 64.0)


@pytest.mark.parametrize("suffix", [".faiss", ".vectors.npy", ".rows.parquet"])
@pytest.mark.parametrize("damage", ["flip", "cut", "delete"])
def test_damage_is_noticed_and_search_stays_right(large, suffix, damage):
    manifest = next(list_manifests(large.store.vectors_folder))
    path = large.store.vectors_folder / f"{manifest.name}{suffix}"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.unlink()
    if damage != "delete":
        path.write_bytes(data if damage == "flip" else data[:-7])
    coverage = assert_right(large, least_recall=1.0).coverage
    assert coverage.kind == "none"
    assert manifest.name in coverage.damaged[0]
    assert verify(large.store)
    assert repair_vectors(large.store)
    assert verify(large.store) == []
