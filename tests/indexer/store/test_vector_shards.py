"""Codes made by many tasks are bit by bit those that one process makes."""

import pickle

import numpy as np
import pytest

from indexer import schema
from indexer.errors import StorageError
from indexer.store.compact import compact
from indexer.store.index import IndexStore
from indexer.store.inverted_file import InvertedFile
from indexer.store.vectors import IVF, list_manifests


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
    """Three of 128 moments, coded 64 at a time, in an index that counts as a large one."""
    monkeypatch.setattr("indexer.store.vectors.FLAT_UP_TO_BYTES", 0)
    monkeypatch.setattr("indexer.store.builds._SHARDED_FROM", 200)
    monkeypatch.setattr("indexer.store.inverted_file.ROWS_AT_ONCE", 64)
    monkeypatch.setattr("indexer.store.vector_shards.ROWS_AT_ONCE", 64)
    monkeypatch.setattr("indexer.store.vector_shards._ROWS_PER_SHARD", 128)


def fill(maker):
    """280 visible moments in files of several sizes, among others that are not."""
    for number, size in enumerate((40, 1, 70, 39)):
        maker.add(*(f"/v/{number}/{video}.mp4" for video in range(size)), batch_id=f"b{number}")
    maker.store.ledger.remove([schema.video_id(f"/v/2/{video}.mp4") for video in range(10)])
    return maker


@pytest.fixture
def filled(make_store):
    return fill(make_store())


def pickled_map(function, shards):
    """As tasks in other processes are given them, and give back."""
    for shard in shards:
        sent, to = pickle.loads(pickle.dumps((function, shard)))
        yield pickle.loads(pickle.dumps(sent(to)))


def content(store, manifest):
    suffixes = sorted(suffix for suffix in manifest.sha256)
    return {suffix: (store.vectors_folder / f"{manifest.name}{suffix}").read_bytes() for suffix in suffixes}


def names_in(folder):
    return {path.name for path in folder.glob("*")}


def assert_same_file(maker):
    alone = maker.store.build_vectors(anew=True)
    expected = content(maker.store, alone)
    used = []

    def map_shards(function, shards):
        used.extend(shards)
        return pickled_map(function, shards)

    together = maker.store.build_vectors(anew=True, map_shards=map_shards)
    assert (alone.kind, alone.num_vectors, len(used)) == (IVF, 280, 3)
    assert content(maker.store, together) == expected
    assert (alone.nprobe, alone.recall_at_10) == (together.nprobe, together.recall_at_10)
    assert names_in(maker.store.vectors_folder) == {f"{together.name}{s}" for s in (".json", *together.sha256)}
    queries = np.stack([maker.unit() for _ in range(20)])
    snapshot = IndexStore.open(maker.store.path).snapshot()
    scores, _ = snapshot.search(queries, 280)
    np.testing.assert_allclose(scores, -np.sort(-(queries @ snapshot.embeddings().T), axis=1), atol=1e-5)
    assert snapshot.coverage.covered == 280


def test_tasks_make_the_file_that_one_process_makes(filled):
    assert_same_file(filled)


def test_tasks_make_it_in_a_bucket_too(bucket, maker, config):
    assert_same_file(fill(type(maker)(IndexStore.open_or_create(bucket / "index", config))))


def test_a_small_collection_is_coded_here(make_store):
    maker = make_store()
    maker.add(*(f"/v/{video}.mp4" for video in range(20)))
    assert maker.store.build_vectors(map_shards=lambda function, shards: pytest.fail("for 40 moments")).kind == IVF


def test_what_a_task_raises_ends_the_build_and_leaves_nothing_behind(filled):
    def failing(function, shards):
        yield function(shards[0])
        function(shards[1])
        raise StorageError("the disk is full")

    with pytest.raises(StorageError, match="the disk is full"):
        filled.store.build_vectors(map_shards=failing)
    assert not {name for name in names_in(filled.store.vectors_folder) if "shard" in name or "lists" in name}
    assert filled.store.snapshot().coverage.kind == "none"


def test_a_shard_that_was_damaged_is_noticed(filled):
    def damaging(function, shards):
        for shard in shards:
            checksum = function(shard)
            with open(shard.out, "r+b") as stream:
                stream.seek(-5, 2)
                stream.write(b"?")
            yield checksum

    with pytest.raises(StorageError, match=r"shard-00000.*damaged"):
        filled.store.build_vectors(map_shards=damaging)


def test_what_a_killed_build_leaves_is_swept(filled):
    filled.store.build_vectors()
    for suffix in ("lists", "shard-00001"):
        (filled.store.vectors_folder / f"v000000000009-0a1b2c3d.{suffix}").write_bytes(b"?")
    compact(filled.store, older_than_hours=0)
    assert not {name for name in names_in(filled.store.vectors_folder) if name.startswith("v000000000009")}


@pytest.fixture
def trained(monkeypatch):
    """How often lists are learnt."""
    calls, train = [], InvertedFile.train

    def counted(vectors):
        calls.append(len(vectors))
        return train(vectors)

    monkeypatch.setattr(InvertedFile, "train", counted)
    return calls


@pytest.fixture
def lenient(monkeypatch):
    """Chance vectors have no neighbourhoods: what is measured with 140 of them varies."""
    monkeypatch.setattr("indexer.store.vector_writer._LEAST_RECALL", 0.8)
    monkeypatch.setattr("indexer.store.vector_writer._MOST_NPROBE_GROWTH", 3.0)


def grow(maker, num_videos, name="more"):
    maker.add(*(f"/v/{name}/{video}.mp4" for video in range(num_videos)), batch_id=name)


def test_lists_are_used_again_until_the_collection_has_doubled(filled, trained, lenient):
    first = filled.store.build_vectors()
    grow(filled, 70)
    second = filled.store.build_vectors()
    assert trained == [280]
    assert (first.trained_on, second.trained_on, second.num_vectors) == (280, 280, 420)
    assert second.num_lists == first.num_lists
    assert second.recall_at_10 >= 0.8
    grow(filled, 71, "doubled")
    third = filled.store.build_vectors()
    assert trained == [280, 562]
    assert third.trained_on == 562


def test_lists_that_are_used_again_are_filled_by_tasks_as_well(filled, trained, lenient):
    filled.store.build_vectors()
    grow(filled, 30)
    together = filled.store.build_vectors(map_shards=pickled_map)
    assert trained == [280]
    snapshot = filled.store.snapshot()
    queries = np.stack([filled.unit() for _ in range(20)])
    scores, _ = snapshot.search(queries, snapshot.num_segments)
    np.testing.assert_allclose(scores, -np.sort(-(queries @ snapshot.embeddings().T), axis=1), atol=1e-5)
    assert together.num_vectors == 340


def test_lists_are_learnt_anew_when_those_of_before_find_too_little(filled, trained, monkeypatch):
    filled.store.build_vectors()
    monkeypatch.setattr("indexer.store.vector_writer._LEAST_RECALL", 1.1)
    grow(filled, 10)
    manifest = filled.store.build_vectors()
    assert trained == [280, 300]
    assert (manifest.trained_on, manifest.num_vectors) == (300, 300)
    assert filled.store.snapshot().vector_file.vectors.shape == (300, 16)


def test_lists_are_learnt_anew_when_more_of_them_have_to_be_looked_into(filled, trained, monkeypatch):
    filled.store.build_vectors()
    monkeypatch.setattr("indexer.store.vector_writer._LEAST_RECALL", 0.0)
    monkeypatch.setattr("indexer.store.vector_writer._MOST_NPROBE_GROWTH", 0.0)
    grow(filled, 10)
    filled.store.build_vectors()
    assert trained == [280, 300]


def test_lists_of_moments_that_are_gone_are_not_used_again(filled, trained, lenient):
    """As after a refresh with another model: none of the vectors is what it was."""
    filled.store.build_vectors()
    for number, size in enumerate((40, 1, 70, 39)):
        filled.add(*(f"/v/{number}/{video}.mp4" for video in range(size)), batch_id=f"other{number}")
    filled.store.build_vectors()
    assert trained == [280, 300]


def test_a_repair_learns_anew(filled, trained, lenient):
    filled.store.build_vectors()
    grow(filled, 10)
    filled.store.build_vectors(anew=True)
    assert trained == [280, 300]


def test_a_file_of_before_that_does_not_say_what_its_lists_were_learnt_with(filled, trained, lenient):
    manifest = filled.store.build_vectors()
    path = filled.store.vectors_folder / f"{manifest.name}.json"
    path.write_text(path.read_text().replace('"trained_on": 280', '"trained_on": 0'))
    grow(filled, 10)
    assert filled.store.build_vectors().trained_on == 280
    assert trained == [280]
    assert next(list_manifests(filled.store.vectors_folder)).trained_on == 280
