import shutil

import faiss
import numpy as np
import pyarrow as pa
import pytest

from indexer.store.ann import nearest, nearest_stored
from indexer.store.inverted_file import Selection, number_of_lists
from indexer.store.stored_vectors import StoredVectors
from indexer.store.vector_writer import build_vector_file
from indexer.store.vectors import (
    FLAT,
    FLAT_UP_TO_BYTES,
    IVF,
    delete_others,
    kind_for,
    list_manifests,
    open_vector_file,
)

DIM = 96


def unit(vectors: np.ndarray) -> np.ndarray:
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def unit_vectors(count: int, seed: int = 1) -> np.ndarray:
    """Neighbourhoods of a hundred vectors each."""
    random = np.random.default_rng(seed)
    centres = np.random.default_rng(0).standard_normal((60, DIM))
    return unit(centres[random.integers(0, 60, count)] + 0.6 * random.standard_normal((count, DIM)))


def build(folder, vectors, kind, queries=None):
    manifest = build_vector_file(
        folder,
        parts=np.array_split(vectors, 3),
        dim=vectors.shape[1],
        segment_ids=np.arange(len(vectors)) * 7,
        batch_ids=pa.array(["b"] * len(vectors)),
        ledger_version=3,
        kind=kind,
        queries=queries,
    )
    return open_vector_file(folder, manifest)


@pytest.fixture(scope="module")
def vectors() -> np.ndarray:
    return unit_vectors(6000)


@pytest.fixture(scope="module")
def ivf_folder(tmp_path_factory, vectors):
    folder = tmp_path_factory.mktemp("vectors") / "files"
    build(folder, vectors, IVF, unit_vectors(100, seed=2))
    return folder


@pytest.fixture(params=[FLAT, IVF])
def file(request, tmp_path, vectors, ivf_folder, monkeypatch):
    # So that a filter of a hundred vectors is already too many to compare them all.
    monkeypatch.setattr("indexer.store.vectors._GATHER_UP_TO_BYTES", 100 * 4 * DIM)
    if request.param == FLAT:
        return build(tmp_path, vectors, FLAT)
    return open_vector_file(ivf_folder, next(list_manifests(ivf_folder)))


def brute_force(vectors, queries, k, rows):
    """Oracle: scores and rows of the k nearest among some rows."""
    scores = queries @ vectors[rows].T
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(scores, order, 1), rows[order]


def recall(found, wanted):
    return np.mean([np.isin(right, rows).mean() for rows, right in zip(found, wanted, strict=True)])


QUERIES = unit_vectors(40, seed=3)


def assert_search_is_right(file, vectors, rows, within, k=10, queries=QUERIES):
    scores, found = file.search(queries, k, within)
    _, wanted = brute_force(vectors, queries, k, rows)
    assert found.shape == wanted.shape
    assert np.isin(found, rows).all(), "only what may be found, and always as many as there are"
    assert all(len(set(one)) == len(one) for one in found.tolist())
    assert recall(found, wanted) >= (1.0 if file.manifest.kind == FLAT else 0.95)
    np.testing.assert_allclose(scores, np.take_along_axis(queries @ vectors.T, found, 1), atol=1e-5)
    assert (np.diff(scores, axis=1) <= 1e-6).all()


@pytest.mark.parametrize("k", [1, 10, 200, 5000, 9000])
def test_search_against_brute_force(file, vectors, k):
    assert_search_is_right(file, vectors, np.arange(len(vectors)), None, k)


@pytest.mark.parametrize("share", [0.99, 0.5, 0.1, 0.02, 0.001])
def test_a_filter_that_knows_nothing_of_the_vectors_against_brute_force(file, vectors, share):
    rows = np.flatnonzero(np.random.default_rng(4).random(len(vectors)) < share)
    assert_search_is_right(file, vectors, rows, Selection(rows, len(vectors)))


def test_a_filter_that_keeps_what_lies_elsewhere_against_brute_force(file, vectors):
    """As `label=beach` does for a query about offices: the nearest lists hold next to nothing that passes."""
    likeness = QUERIES[:20] @ vectors.T
    for query, elsewhere in zip(QUERIES, likeness[np.argmin(QUERIES @ QUERIES[:20].T, axis=1)], strict=True):
        rows = np.sort(np.argsort(-elsewhere)[:400])
        for k in (10, 399):
            assert_search_is_right(file, vectors, rows, Selection(rows, len(vectors)), k=k, queries=query[None])


def test_a_filter_that_keeps_nothing_finds_nothing(file, vectors):
    scores, rows = file.search(QUERIES, 5, Selection(np.empty(0, np.int64), len(vectors)))
    assert scores.shape == rows.shape == (len(QUERIES), 0)


def test_ids_and_vectors_come_back(file, vectors):
    assert file.segment_ids.tolist() == [7 * i for i in range(len(vectors))]
    np.testing.assert_array_equal(file.vectors, vectors)


def test_the_recall_of_the_manifest_is_that_of_queries_it_was_not_tuned_with(ivf_folder, vectors, monkeypatch):
    monkeypatch.setattr("indexer.store.vectors._COMPARED_PER_HIT", 0)
    manifest = next(list_manifests(ivf_folder))
    file = open_vector_file(ivf_folder, manifest)
    measured = unit_vectors(100, seed=2)[1::2]
    wanted = brute_force(vectors, measured, 10, np.arange(len(vectors)))[1]
    assert manifest.recall_at_10 == pytest.approx(recall(file.search(measured, 10)[1], wanted), abs=1e-4)
    assert manifest.recall_queries == "texts"
    assert 0 < manifest.nprobe < manifest.num_lists == number_of_lists(len(vectors))


def test_codes_take_less_memory_than_vectors(ivf_folder):
    manifest = next(list_manifests(ivf_folder))
    codes = (ivf_folder / f"{manifest.name}.faiss").stat().st_size
    assert manifest.bytes_per_vector * manifest.num_vectors == pytest.approx(codes, rel=0.05)
    assert manifest.bytes_per_vector < 4 * DIM


def test_moments_are_the_queries_where_there_are_no_texts(tmp_path, vectors):
    file = build(tmp_path, vectors[:1500], IVF)
    assert file.manifest.recall_queries == "moments"
    assert file.manifest.recall_at_10 > 0.9


def test_the_kind_follows_the_size():
    assert kind_for(FLAT_UP_TO_BYTES // (4 * 384), 384) == FLAT
    assert kind_for(FLAT_UP_TO_BYTES // (4 * 384) + 1, 384) == IVF
    assert kind_for(100_000, 64) == FLAT


@pytest.mark.parametrize("count", [1, 2, 50])
def test_a_handful_can_be_asked_for_as_an_inverted_file(tmp_path, count):
    vectors = unit_vectors(count)
    file = build(tmp_path, vectors, IVF)
    assert sorted(file.search(vectors[:1], 60)[1][0]) == list(range(count))


def test_nearest_gives_what_there_is():
    scores, rows = nearest(QUERIES, np.empty((0, DIM), np.float32), 5)
    assert scores.shape == rows.shape == (len(QUERIES), 0)
    assert nearest(QUERIES, unit_vectors(3), 5)[1].shape == (len(QUERIES), 3)


@pytest.mark.parametrize("count", [0, 1, 50])
def test_a_flat_file_is_the_one_that_faiss_writes(tmp_path, count):
    vectors = unit_vectors(count)
    build(tmp_path, vectors, FLAT)
    index = faiss.IndexFlatIP(DIM)
    index.add(vectors)
    (path,) = tmp_path.glob("*.faiss")
    assert path.read_bytes() == bytes(faiss.serialize_index(index).data)


def test_an_open_flat_file_can_be_searched_after_it_was_deleted(tmp_path, vectors):
    file = build(tmp_path, vectors, FLAT)
    shutil.rmtree(tmp_path)
    assert_search_is_right(file, vectors, np.arange(len(vectors)), None)


@pytest.mark.parametrize("rows", [slice(0, 0), slice(5, 9), slice(5990, 7000), np.array([[3, 1], [5999, 3]])])
def test_stored_vectors_are_those_of_an_array(tmp_path, vectors, rows):
    np.save(tmp_path / "vectors.npy", vectors)
    stored = StoredVectors(tmp_path / "vectors.npy")
    assert stored.shape == vectors.shape
    assert np.array_equal(stored[rows], vectors[rows])


def test_nearest_in_a_file_are_those_of_an_array(tmp_path, vectors, monkeypatch):
    monkeypatch.setattr("indexer.store.ann._READ_BYTES", 700 * 4 * DIM)
    np.save(tmp_path / "vectors.npy", vectors)
    scores, rows = nearest_stored(QUERIES, StoredVectors(tmp_path / "vectors.npy"), 10)
    wanted_scores, wanted_rows = brute_force(vectors, QUERIES, 10, np.arange(len(vectors)))
    assert np.array_equal(rows, wanted_rows)
    np.testing.assert_allclose(scores, wanted_scores, atol=1e-5)


def test_an_inverted_file_is_made_without_reading_many_vectors_at_once(tmp_path, vectors, monkeypatch):
    monkeypatch.setattr("indexer.store.inverted_file.ROWS_AT_ONCE", 500)
    monkeypatch.setattr("indexer.store.ann._READ_BYTES", 500 * 4 * DIM)
    monkeypatch.setattr("indexer.store.ann._GATHERED_BYTES", 500 * 4 * DIM)
    real, read = StoredVectors.__getitem__, list[int]()

    def note(self, rows):
        found = real(self, rows)
        read.append(found.nbytes)
        return found

    monkeypatch.setattr(StoredVectors, "__getitem__", note)
    build(tmp_path, vectors, IVF, unit_vectors(100, seed=2))
    assert sum(read) >= 3 * vectors.nbytes, "compared, learnt from and coded"
    assert max(read) <= 500 * 4 * DIM


def test_manifests_that_are_not_json_or_of_another_kind_are_passed_over(tmp_path):
    file = build(tmp_path, unit_vectors(5), FLAT)
    (tmp_path / "v999999999999-broken.json").write_text("{")
    text = (tmp_path / f"{file.manifest.name}.json").read_text()
    (tmp_path / "v999999999998-other.json").write_text(text.replace('"flat"', '"hnsw"'))
    assert [manifest.ledger_version for manifest in list_manifests(tmp_path)] == [3]


def test_a_deleted_file_leaves_nothing_behind(tmp_path, ivf_folder):
    shutil.copytree(ivf_folder, tmp_path / "copy")
    kept = build(tmp_path / "copy", unit_vectors(5), FLAT).manifest
    delete_others(tmp_path / "copy", kept)
    assert {path.name.partition(".")[0] for path in (tmp_path / "copy").iterdir()} == {kept.name}
