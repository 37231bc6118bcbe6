"""A plain Python loop with PyAV and PyTorch: decode every frame, keep one in so many, resize, encode, write Parquet."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from benchmarks.contestants.arguments import Finished, Race, run
from benchmarks.contestants.network import FRAME_SIZE_PX, Network, in_batches


def loop(race: Race) -> Finished:
    network = Network(race.num_workers)
    features = [network(batch) for video in race.videos for batch in in_batches(_frames(video, race.frame_rate_hz))]
    rows = np.concatenate(features)
    table = pa.table({"features": pa.FixedSizeListArray.from_arrays(rows.ravel(), rows.shape[1])})
    pq.write_table(table, race.out / "features.parquet")
    return Finished(frames=len(rows))


def _frames(video: Path, frame_rate_hz: float) -> Iterator[NDArray[np.uint8]]:
    with av.open(str(video)) as container:
        container.streams.video[0].thread_type = "AUTO"
        stride = round(float(container.streams.video[0].average_rate or 30) / frame_rate_hz)
        for frame in itertools.islice(container.decode(video=0), 0, None, stride):
            yield np.asarray(frame.to_ndarray(format="rgb24", width=FRAME_SIZE_PX, height=FRAME_SIZE_PX), np.uint8)


if __name__ == "__main__":
    run(loop)
