import numpy as np
import pyarrow as pa
import pytest

from indexer.store.vectors import build_vector_file, list_manifests, open_vector_file


def unit_vectors(count: int, dim: int = 24) -> np.ndarray:
    vectors = np.random.default_rng(1).standard_normal((count, dim)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def build(folder, vectors, kind):
    manifest = build_vector_file(
        folder,
        vectors=vectors,
        segment_ids=np.arange(len(vectors)) * 7,
        batch_ids=pa.array(["b"] * len(vectors)),
        ledger_version=3,
        kind=kind,
    )
    return open_vector_file(folder, manifest)


@pytest.mark.parametrize(("kind", "least_recall"), [("flat", 1.0), ("hnsw", 0.95)])
@pytest.mark.parametrize("masked", [False, True])
def test_search_against_brute_force(tmp_path, kind, least_recall, masked):
    vectors, queries = unit_vectors(2000), unit_vectors(20) + 0.01
    file = build(tmp_path, vectors, kind)
    allowed = np.random.default_rng(2).random(len(vectors)) < 0.5 if masked else None
    exact = queries @ vectors.T
    if allowed is not None:
        exact[:, ~allowed] = -np.inf
    scores, rows = file.search(queries, 10, allowed)
    wanted = np.argsort(-exact, axis=1)[:, :10]
    recall = np.mean([len(set(a) & set(b)) / 10 for a, b in zip(rows, wanted, strict=True)])
    assert recall >= least_recall
    np.testing.assert_allclose(scores, np.take_along_axis(exact, rows, 1), atol=1e-5)


def test_ids_and_vectors_come_back(tmp_path):
    vectors = unit_vectors(50)
    file = build(tmp_path, vectors, "flat")
    assert file.segment_ids.tolist() == [7 * i for i in range(50)]
    np.testing.assert_array_equal(file.reconstruct(np.array([3, 40])), vectors[[3, 40]])


def test_a_manifest_that_is_not_json_is_passed_over(tmp_path):
    build(tmp_path, unit_vectors(5), "flat")
    (tmp_path / "v999999999999-broken.json").write_text("{")
    assert [manifest.ledger_version for manifest in list_manifests(tmp_path)] == [3]
