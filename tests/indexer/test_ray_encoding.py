"""What Ray's own behaviour would break."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import ray
import ray.data

from indexer.errors import WorkerError
from indexer.ray_cluster import ray_cluster
from indexer.ray_encoding import _blocks


def _put_in_a_session() -> ray.ObjectRef:
    with ray_cluster(num_cpus=1):
        return ray.put("something")


def test_objects_of_two_sessions_in_one_process_never_share_a_name():
    references = []
    for _ in range(2):
        with ThreadPoolExecutor(max_workers=1) as thread:
            references.append(thread.submit(_put_in_a_session).result())
    assert references[0].hex() != references[1].hex()


def test_an_error_inside_ray_data_is_one_clear_line():
    class Broken:
        def iter_batches(self, **_):
            raise KeyError("a reference")

    with pytest.raises(WorkerError, match="the workers stopped: 'a reference'; what was committed is kept"):
        list(_blocks(Broken()))


def test_a_ray_that_does_not_start_is_one_clear_line(monkeypatch):
    def broken(**_):
        raise Exception("The current node timed out during startup")

    monkeypatch.setattr(ray, "init", broken)
    with (
        pytest.raises(WorkerError, match="could not start Ray on this machine: The current node timed out"),
        ray_cluster(),
    ):
        pass


def test_a_ray_that_does_not_start_at_first_is_started_once_more(monkeypatch):
    init, faults = ray.init, [Exception("The current node timed out during startup")]

    def late(**options):
        if faults:
            raise faults.pop()
        return init(**options)

    monkeypatch.setattr(ray, "init", late)
    with ray_cluster(num_cpus=1) as cluster:
        assert cluster.num_cpus == 1
    assert not faults


def test_something_else_is_done_while_ray_starts(monkeypatch):
    done = threading.Event()

    def init(**_):
        raise Exception("done meanwhile" if done.wait(timeout=20) else "waited in vain")

    monkeypatch.setattr(ray, "init", init)
    with pytest.raises(WorkerError, match="done meanwhile"), ray_cluster(meanwhile=done.set):
        pass
