"""A batch of videos, one after the other, with a model that computes elsewhere."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest

from indexer import schema
from indexer.batches import BatchEncoder, EncoderSettings
from indexer.config import SamplingConfig
from indexer.ingest.files import look_at
from indexer.ingest.frame_model import FrameModel, LocalModel
from indexer.work import WorkItem
from model.weights import load_model
from tests.indexer.conftest import new_index

SAMPLING = SamplingConfig(frame_rate_hz=2.0, segment_length_s=1.0, mode="exact")


class Elsewhere(FrameModel):
    """Of one request the features may get lost. Or it is slow, and fuses moments only when frames of the next of three
    videos, of two requests each, have come, and notes whether they did."""

    is_elsewhere = True

    def __init__(self, *, lost: int = -1, is_slow: bool = False) -> None:
        self._model = LocalModel(load_model("tiny_test"))
        self.frame_size_px, self.label_names = self._model.frame_size_px, self._model.label_names
        self.went_on: list[bool] = []
        self._lost, self._is_slow, self._num_sent = lost, is_slow, 0
        self._sent = threading.Condition()

    def encode_frames(self, frames: np.ndarray):
        number, features = self._num_sent, self._model.encode_frames(frames)
        with self._sent:
            self._num_sent += 1
            self._sent.notify()

        def wait() -> np.ndarray:
            if number == self._lost:
                raise RuntimeError("the features got lost")
            return features()

        return wait

    def fuse(self, *moments):
        if self._is_slow:
            expected = min(6, 2 * len(self.went_on) + 3)
            with self._sent:
                self.went_on.append(self._sent.wait_for(lambda: self._num_sent >= expected, timeout=20))
        return self._model.fuse(*moments)


@pytest.fixture
def encode(synthetic, tmp_path):
    """Encodes three videos of two moments in one batch, and gives its rows in the ledger and of its moments."""
    first, second, third = (synthetic.write(f"{name}.mp4", range(0, 2000, 100)) for name in ("a", "b", "c"))

    def encode_batch(model: FrameModel | None, *, damaged: bool = False) -> tuple[list[dict], list[dict]]:
        store = new_index(tmp_path / f"index-{len(list(tmp_path.iterdir()))}", SAMPLING)
        if damaged:
            Path(second).write_bytes(b"no video")
        encoder = BatchEncoder(EncoderSettings(index_path=str(store.path), model="tiny_test", sampling=SAMPLING), model)
        try:
            result = encoder.encode([WorkItem(file=look_at(str(path))) for path in (first, second, third)])
        finally:
            encoder.close()
        store.commit(result.videos, result.files)
        snapshot = store.snapshot()
        moments = snapshot.read(range(snapshot.num_segments), schema.SEGMENTS.names).to_pylist()
        videos = store.ledger.snapshot().videos.to_pylist()
        return sorted(videos, key=lambda row: row["uri"]), [{**row, "batch_id": ""} for row in moments]

    return encode_batch


def test_next_video_is_decoded_while_the_last_one_is_fused(encode):
    model = Elsewhere(is_slow=True)
    _, moments = encode(model)
    assert model.went_on == [True, True, True]
    assert moments == encode(None)[1]


@pytest.mark.parametrize("lost", [1, 2, 5])
def test_video_whose_features_get_lost_fails_alone(encode, lost):
    _, all_moments = encode(None)
    videos, moments = encode(Elsewhere(lost=lost))
    assert [row["status"] == schema.FAILED for row in videos] == [lost // 2 == number for number in range(3)]
    assert "the features got lost" in videos[lost // 2]["error_message"]
    kept = {row["video_id"] for row in videos if row["status"] == schema.INDEXED}
    assert moments == [row for row in all_moments if row["video_id"] in kept]


def test_damaged_video_between_others_fails_alone(encode):
    _, all_moments = encode(None)
    videos, moments = encode(Elsewhere(), damaged=True)
    assert [row["status"] for row in videos] == [schema.INDEXED, schema.FAILED, schema.INDEXED]
    assert moments == [row for row in all_moments if row["video_id"] != videos[1]["video_id"]]
