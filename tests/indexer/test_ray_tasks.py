"""Tasks on a real Ray."""

import json
import logging
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow as pa
import pytest
import ray

from indexer import schema
from indexer.errors import UsageError, WorkerError
from indexer.ray_tasks import map_on_ray
from indexer.storage import location
from indexer.store.inverted_file import InvertedFile
from indexer.store.segments_table import write_segment_file
from indexer.store.vector_shards import VectorShard, code_shard
from tests.indexer.store.conftest import segment_row


def test_results_come_in_the_order_of_the_items_from_a_ray_that_is_started_for_it():
    names = [f"/v/{number}.mp4" for number in range(12)]
    assert list(map_on_ray(schema.video_id, names)) == [schema.video_id(name) for name in names]
    assert not ray.is_initialized()


@pytest.fixture(scope="module")
def started_ray():
    options = {"num_cpus": 2, "object_store_memory": 200 << 20, "include_dashboard": False, "log_to_driver": False}
    with ThreadPoolExecutor(max_workers=1) as starter:  # for its whole life, see `indexer.ray_cluster`
        starter.submit(ray.init, "local", logging_level=logging.ERROR, **options).result()
        yield
        ray.shutdown()


@pytest.fixture
def one_ray(started_ray, monkeypatch):
    """Is there already, and stays: starting it takes seconds."""
    monkeypatch.setattr(ray, "shutdown", lambda: None)


def test_an_error_of_ours_arrives_as_it_was_raised(one_ray):
    with pytest.raises(UsageError, match="must be s3://BUCKET/KEY"):
        list(map_on_ray(location, ["/v", "s3://"]))


def test_another_error_is_one_clear_line(one_ray):
    with pytest.raises(WorkerError, match=r"^a task stopped: .*run the same command again$"):
        list(map_on_ray(json.loads, ["no JSON"]))


def test_a_cluster_that_is_not_there_is_said_so():
    with pytest.raises(WorkerError, match="nothing answers"):
        list(map_on_ray(schema.video_id, ["/v"], address="127.0.0.1:9"))


def test_tasks_code_what_this_process_codes(one_ray, tmp_path):
    vectors = np.random.default_rng(0).standard_normal((300, 16)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    lists = InvertedFile.train(vectors)
    (tmp_path / "lists").write_bytes(lists.to_bytes())
    rows = [segment_row("/v/a.mp4", 10.0 * number, "b", vector) for number, vector in enumerate(vectors)]
    file = write_segment_file(tmp_path, pa.Table.from_pylist(rows, schema=schema.SEGMENTS))
    shard = VectorShard(
        lists=str(tmp_path / "lists"),
        out=str(tmp_path / "codes"),
        dim=16,
        first_row=0,
        moments=[(str(tmp_path / file.name), np.arange(300))],
    )
    list(map_on_ray(code_shard, [shard]))
    lists.add(vectors)
    assert (tmp_path / "codes").read_bytes() == bytes(lists.to_bytes())
