"""A batch of videos, one after the other, with a model that computes elsewhere."""

from __future__ import annotations

import itertools
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
    """Notes when frames come and when somebody waits for their features; of one request they get lost."""

    def __init__(self, lost: int = -1) -> None:
        self._model = LocalModel(load_model("tiny_test"))
        self.frame_size_px, self.label_names = self._model.frame_size_px, self._model.label_names
        self.noted: list[str] = []
        self._lost, self._num_sent = lost, 0

    def encode_frames(self, frames: np.ndarray):
        number, features = self._num_sent, self._model.encode_frames(frames)
        self._num_sent += 1
        self.noted.append("sent")

        def wait() -> np.ndarray:
            self.noted.append("waited")
            if number == self._lost:
                raise RuntimeError("the features got lost")
            return features()

        return wait

    def fuse(self, *moments):
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


def test_next_video_is_decoded_before_the_features_of_the_last_are_waited_for(encode):
    model = Elsewhere()
    _, moments = encode(model)
    runs = [(what, len(list(run))) for what, run in itertools.groupby(model.noted)]
    assert [what for what, _ in runs] == ["sent", "waited", "sent", "waited"]
    assert (runs[0][1], runs[2][1]) == (4, 2)  # both moments of two videos, then of the third
    assert moments == encode(None)[1]


@pytest.mark.parametrize("lost", [1, 2, 5])
def test_video_whose_features_get_lost_fails_alone(encode, lost):
    _, all_moments = encode(None)
    videos, moments = encode(Elsewhere(lost))
    assert [row["status"] == schema.FAILED for row in videos] == [lost // 2 == number for number in range(3)]
    assert "the features got lost" in videos[lost // 2]["error_message"]
    kept = {row["video_id"] for row in videos if row["status"] == schema.INDEXED}
    assert moments == [row for row in all_moments if row["video_id"] in kept]


def test_damaged_video_between_others_fails_alone(encode):
    _, all_moments = encode(None)
    videos, moments = encode(Elsewhere(), damaged=True)
    assert [row["status"] for row in videos] == [schema.INDEXED, schema.FAILED, schema.INDEXED]
    assert moments == [row for row in all_moments if row["video_id"] != videos[1]["video_id"]]
