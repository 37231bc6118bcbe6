"""Tasks on a real Ray, started here."""

import json

import numpy as np
import pyarrow as pa
import pytest

from indexer import schema
from indexer.errors import UsageError, WorkerError
from indexer.ray_tasks import map_on_ray
from indexer.storage import location
from indexer.store.inverted_file import InvertedFile
from indexer.store.segments_table import write_segment_file
from indexer.store.vector_shards import VectorShard, code_shard
from tests.indexer.store.conftest import segment_row


def test_results_come_in_the_order_of_the_items():
    names = [f"/v/{number}.mp4" for number in range(12)]
    assert list(map_on_ray(schema.video_id, names)) == [schema.video_id(name) for name in names]


def test_an_error_of_ours_arrives_as_it_was_raised():
    with pytest.raises(UsageError, match="must be s3://BUCKET/KEY"):
        list(map_on_ray(location, ["/v", "s3://"]))


def test_another_error_is_one_clear_line():
    with pytest.raises(WorkerError, match=r"^a task stopped: .*run the same command again$"):
        list(map_on_ray(json.loads, ["no JSON"]))


def test_a_cluster_that_is_not_there_is_said_so():
    with pytest.raises(WorkerError, match="nothing answers"):
        list(map_on_ray(schema.video_id, ["/v"], address="127.0.0.1:9"))


def test_tasks_code_what_this_process_codes(tmp_path):
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
