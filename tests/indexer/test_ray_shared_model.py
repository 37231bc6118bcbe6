"""One model for many workers: what it is asked at once is encoded at once, and everybody gets their own."""

from __future__ import annotations

import asyncio
import itertools
import threading

import numpy as np
import pytest

from benchmarks import accelerator
from benchmarks.simulated_accelerator import WatchedModel
from indexer import ray_model_client, ray_shared_model
from indexer.batches import EncoderSettings
from indexer.errors import WorkerError
from indexer.ingest.fuse import STORED
from indexer.ray_model_client import SharedModelClient
from indexer.ray_shared_model import SharedModel, start_shared_models
from model.gpu_batches import GPU_BATCH_SIZES
from model.weights import load_model


class Recorded(SharedModel):
    """Notes how many frames the model is given at once. It holds on until all have asked."""

    def __init__(self):
        super().__init__("tiny_test", "cpu", 1)
        self.sizes, self.all_asked = [], threading.Event()
        self._real, self._model.encode_frames = self._model.encode_frames, self._encode_frames

    def _encode_frames(self, frames):
        self.all_asked.wait(timeout=20)
        self.sizes.append(len(frames))
        if frames.max() == 255:
            raise RuntimeError("out of memory")
        return self._real(frames)


def ask(model, requests):
    """The first request alone; the others while the model is busy with it."""

    async def all_at_once():
        asked = [asyncio.ensure_future(model.encode_frames(requests[0]))]
        await asyncio.sleep(0.05)
        asked += [asyncio.ensure_future(model.encode_frames(frames)) for frames in requests[1:]]
        await asyncio.sleep(0.05)
        model.all_asked.set()
        return await asyncio.gather(*asked, return_exceptions=True)

    return asyncio.run(all_at_once())


@pytest.fixture
def requests():
    drawn = np.random.default_rng(5)
    side = load_model("tiny_test").frame_size_px
    return [drawn.integers(0, 255, (n, side, side, 3), dtype=np.uint8) for n in (3, 1, 4, 2, 5)]


def test_what_is_asked_while_the_model_is_busy_is_encoded_together(requests):
    model = Recorded()
    answers = ask(model, requests)
    assert model.sizes == [3, 12]
    alone = load_model("tiny_test")
    for frames, features in zip(requests, answers, strict=True):
        assert features.dtype == STORED
        np.testing.assert_allclose(features, alone.encode_frames(frames).numpy(), atol=2e-3)


def test_no_more_frames_than_the_limit_are_encoded_at_once(requests, monkeypatch):
    monkeypatch.setattr(ray_shared_model, "MAX_FRAMES_AT_ONCE", 6)
    model = Recorded()
    answers = ask(model, requests)
    assert model.sizes == [3, 6, 6]
    alone = load_model("tiny_test")
    for frames, features in zip(requests, answers, strict=True):  # the third and the last are cut in two
        np.testing.assert_allclose(features, alone.encode_frames(frames).numpy(), atol=2e-3)


def test_what_the_model_cannot_encode_fails_for_those_who_asked_and_nobody_else(requests):
    model = Recorded()
    requests[0][0, 0, 0, 0] = 255
    first, *others = ask(model, requests)
    assert isinstance(first, RuntimeError)
    assert [len(features) for features in others] == [1, 4, 2, 5]


def test_every_size_of_batch_is_met_in_the_one_thread_that_encodes_before_the_first_frames_come(requests, monkeypatch):
    """A GPU plans for each size and thread anew, for seconds."""
    seen = []

    def load(name, *, device, num_threads):
        model = load_model(name)
        monkeypatch.setattr(model, "runtime", lambda frames, real=model.runtime: noted(frames, real))
        return model

    def noted(frames, real):
        seen.append((len(frames), threading.get_ident()))
        return real(frames)

    def unpinned(self):
        side = self._model.frame_size_px
        return np.empty((GPU_BATCH_SIZES[-1], side, side, 3), np.uint8)

    monkeypatch.setattr(ray_shared_model, "load_model", load)
    monkeypatch.setattr(SharedModel, "_new_buffer", unpinned)
    model = SharedModel("tiny_test", "cuda", 1)

    async def asked_twice():
        return [await model.encode_frames(frames) for frames in requests[:2]]

    asyncio.run(asked_twice())
    assert [size for size, _ in seen] == [*GPU_BATCH_SIZES, 3, 1]
    assert len({thread for _, thread in seen}) == 1
    assert seen[0][1] != threading.get_ident()


def test_a_device_goes_from_one_batch_to_the_next_without_waiting_for_this_process():
    """Each batch begins in the moment in which the one before it ends: it was there by then. All but
    the last, which would have been filled up."""
    model = WatchedModel(120)

    async def asked():
        side = model._model.frame_size_px
        moments = [np.full((10, side, side, 3), value, np.uint8) for value in range(40)]
        return await asyncio.gather(*[model.encode_frames(moment) for moment in moments])

    answers = asyncio.run(asked())
    assert [float(features.max()) for features in answers] == list(range(40))
    computed = model._accelerator.computed
    assert [number for _, _, number in computed] == [10, 32, 256, 96, 6]
    for (_, ends_at, _), (begins_at, _, _) in itertools.pairwise(computed[:-1]):
        assert begins_at == ends_at


def test_senders_keep_a_slow_device_busy_and_hold_no_more_than_they_may():
    """On Ray: of two senders that want to have 45 MiB each under way. Hardly anything is filled up."""
    seen = accelerator.sent(300, num_senders=2, seconds=1.5)
    assert seen["busy"] > 0.9
    assert seen["share of its speed"] > 0.75
    assert 16 < seen["MiB of frames under way at most"] <= 2 * 16


@pytest.mark.slow
def test_workers_wait_for_the_model_fail_with_its_words_and_learn_when_it_is_gone(monkeypatch):
    """On Ray, from the driver in place of a worker."""
    import ray

    from indexer.config import SamplingConfig
    from indexer.ray_cluster import ray_cluster
    from model.errors import ModelError

    monkeypatch.setattr(ray_shared_model, "_MAX_RESTARTS", 0)
    monkeypatch.setattr(ray_model_client, "_REQUEST_BYTES", 1)
    settings = EncoderSettings(index_path="", model="tiny_test", sampling=SamplingConfig())
    side = load_model("tiny_test").frame_size_px
    frames = np.zeros((20, side, side, 3), np.uint8)
    monkeypatch.setattr(ray_model_client, "_MAX_BYTES_UNDER_WAY", 3 * frames[0].nbytes)
    with ray_cluster(num_cpus=1):
        with pytest.raises(WorkerError, match="'nothing'"):
            SharedModelClient(start_shared_models(EncoderSettings(**{**vars(settings), "model": "nothing"}), "cpu", 1))
        actors = start_shared_models(settings, "cpu", 2)
        client = SharedModelClient(actors)
        features = client.encode_frames(frames)()
        np.testing.assert_allclose(features, load_model("tiny_test").encode_frames(frames).numpy(), atol=2e-3)
        assert len(client._under_way) <= 3
        with pytest.raises(ModelError, match=r"the model failed: .*uint8"):
            client.encode_frames(frames.astype(np.float32))()
        spent = ray.get(actors[0].account.remote())
        assert (spent.kind, set(spent.seconds)) == ("model", {"encode", "idle"})
        for actor in actors:
            ray.kill(actor)
        with pytest.raises(ModelError, match="died too often"):
            client.encode_frames(frames)()
        assert client.lost


@pytest.mark.slow
def test_what_was_under_way_when_the_models_process_died_is_encoded_by_the_next_one():
    """On Ray, from the driver in place of a worker."""
    import ray

    from indexer.config import SamplingConfig
    from indexer.ray_cluster import ray_cluster

    settings = EncoderSettings(index_path="", model="tiny_test", sampling=SamplingConfig())
    model = load_model("tiny_test")
    drawn = np.random.default_rng(6)
    frames = drawn.integers(0, 255, (400, model.frame_size_px, model.frame_size_px, 3), dtype=np.uint8)
    with ray_cluster(num_cpus=1):
        (actor,) = start_shared_models(settings, "cpu", 1)
        client = SharedModelClient([actor])
        under_way = [client.encode_frames(frames[start : start + 40]) for start in range(0, 400, 40)]
        ray.kill(actor, no_restart=False)
        features = np.concatenate([fetch() for fetch in under_way])
        spent = ray.get(actor.account.remote())
    np.testing.assert_allclose(features, model.encode_frames(frames).numpy(), atol=2e-3)
    assert spent.seconds["encode"] > 0  # by the new process, whose account is its own
