"""Daft as its documentation shows it: `read_video_frames`, a class of PyTorch as UDF, `write_parquet`.

With two departures, without which Daft 0.7.26 never ends on two cores. Its reader opens files by waiting for a task of
the thread pool that it runs on, one thread a core: as many readers as cores, or one reader and a UDF, wait for ever. So
one core's thread is kept free of readers, and the frames are collected before the UDF runs.
"""

from __future__ import annotations

from typing import Any

import daft
import numpy as np
import pyarrow.parquet as pq

from benchmarks.contestants.arguments import Finished, Race, run
from benchmarks.contestants.network import FRAME_SIZE_PX, Network

_FEATURE_DIM = 1280


def daft_frames(race: Race) -> Finished:
    daft.set_execution_config(scantask_max_parallel=max(1, race.num_workers - 1))
    frames = daft.read_video_frames(
        [str(video) for video in race.videos],
        image_height=FRAME_SIZE_PX,
        image_width=FRAME_SIZE_PX,
        sample_interval_seconds=1 / race.frame_rate_hz,
    ).collect()
    encoder = _encoder(race.num_workers)()
    features = frames.select("path", "frame_time", encoder.encode(frames["data"]).alias("features"))
    features.write_parquet(str(race.out / "features"))
    return Finished(frames=sum(pq.read_metadata(file).num_rows for file in (race.out / "features").rglob("*.parquet")))


def _encoder(num_workers: int) -> Any:
    @daft.cls(max_concurrency=num_workers, use_process=True)
    class Encoder:
        def __init__(self) -> None:
            self._network = Network()

        @daft.method.batch(return_dtype=daft.DataType.embedding(daft.DataType.float32(), _FEATURE_DIM), batch_size=32)
        def encode(self, images: Any) -> Any:
            return self._network(np.stack(images.to_pylist()))

    return Encoder


if __name__ == "__main__":
    run(daft_frames)
