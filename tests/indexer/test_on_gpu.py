"""The whole of it on a GPU: the rows are nearly those of a CPU, and the model that the workers share did the work."""

from __future__ import annotations

import numpy as np
import pytest

from indexer.config import RunConfig, SamplingConfig
from indexer.pipeline import index_videos

pytestmark = [pytest.mark.gpu, pytest.mark.timeout(600)]


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
