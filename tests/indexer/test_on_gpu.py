"""The whole of it on a GPU: the rows are nearly those of a CPU, and the model that the workers share did the work.

What a GPU decodes has the very rows.
"""

from __future__ import annotations

import numpy as np
import pytest

from indexer.config import RunConfig, SamplingConfig
from indexer.ingest.frame_model import LocalModel
from indexer.pipeline import index_videos
from model.weights import load_model

pytestmark = [pytest.mark.gpu, pytest.mark.timeout(600)]


def test_two_batches_are_in_the_queue_of_a_gpu_before_the_features_of_the_first_are_fetched():
    model = LocalModel(load_model("mini", device="cuda"))
    side = model.frame_size_px
    batches = np.random.default_rng(3).integers(0, 256, (2, 40, side, side, 3), dtype=np.uint8)
    fetches = [model.encode_frames(frames) for frames in batches]
    expected = LocalModel(load_model("mini", device="cpu"))
    for frames, fetch in zip(batches, fetches, strict=True):
        features, others = fetch().astype(np.float32)[:, 0], expected.encode_frames(frames)()[:, 0]
        cosines = (features * others).sum(1) / np.linalg.norm(features, axis=1) / np.linalg.norm(others, axis=1)
        assert cosines.min() > 0.98


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # Ray leaves files and processes open
def test_an_index_made_on_a_gpu_is_nearly_that_of_a_cpu(videos, rows_of, tmp_path):
    runs = {
        device: index_videos(
            [str(videos)],
            tmp_path / device,
            model="mini",
            sampling=SamplingConfig(),
            run=RunConfig(device=device),
            in_process=device == "cpu",
        )
        for device in ("cuda", "cpu")
    }
    assert runs["cuda"].segments == runs["cpu"].segments > 0
    assert runs["cuda"].profile["num_models"] == 1
    for row, other in zip(rows_of("cuda"), rows_of("cpu"), strict=True):
        assert row["segment_id"] == other["segment_id"]
        assert row["frame_times_s"] == other["frame_times_s"]
        assert np.dot(row["embedding"], other["embedding"]) >= 0.99


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("a.mp4", {"options": {"bf": "2"}}),
        ("a.mp4", {"pix_fmt": "yuvj420p"}),
        ("a.mp4", {"codec": "libx265", "options": {"x265-params": "log-level=none"}}),
        (
            "a.mp4",
            {"codec": "libx265", "pix_fmt": "yuv420p10le", "options": {"x265-params": "log-level=none"}},
        ),
        ("a.webm", {"codec": "libvpx-vp9"}),
        ("a.webm", {"codec": "libvpx"}),
    ],
)
def test_an_index_decoded_on_a_gpu_is_that_of_a_cpu(synthetic, rows_of, tmp_path, name, options):
    path = synthetic.write(name, range(0, 12_000, 100), width=1280, height=720, **options)
    assert index_by(path, "nvdec", tmp_path).profile["num_on_gpu"] == 1
    assert index_by(path, "cpu", tmp_path).profile["num_on_gpu"] == 0
    assert rows_of("nvdec") == rows_of("cpu") != []


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("a.mp4", {"pix_fmt": "yuv444p10le"}),
        ("a.mp4", {"codec": "mpeg4"}),
        ("a.mov", {"codec": "prores_ks", "pix_fmt": "yuv422p10le"}),
    ],
)
def test_what_a_gpu_cannot_decode_is_decoded_by_the_cpu(synthetic, rows_of, tmp_path, name, options):
    path = synthetic.write(name, range(0, 12_000, 100), width=1280, height=720, **options)
    assert index_by(path, "nvdec", tmp_path).profile["num_on_gpu"] == 0
    index_by(path, "cpu", tmp_path)
    assert rows_of("nvdec") == rows_of("cpu") != []


def index_by(path, decoder, folder):
    run = RunConfig(device="cpu", decoder=decoder)
    return index_videos([path], folder / decoder, model="mini", sampling=SamplingConfig(), run=run, in_process=True)
