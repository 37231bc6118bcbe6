"""Ray Data as its documentation shows it: `read_videos`, `map_batches` with an actor of PyTorch, `write_parquet`.

Best documented settings: decord picks and resizes the frames (`fps`, `resize`), one actor a core.
"""

from __future__ import annotations

from typing import Any

import pyarrow.parquet as pq

from benchmarks.contestants.arguments import Finished, Race, run
from benchmarks.contestants.network import FRAME_SIZE_PX, Network


class Encode:
    """The actor."""

    def __init__(self) -> None:
        self._network = Network()

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        return {"path": batch["path"], "frame_index": batch["frame_index"], "features": self._network(batch["frame"])}


def ray_data(race: Race) -> Finished:
    import ray.data

    ray.init(num_cpus=race.num_workers, include_dashboard=False, log_to_driver=False)
    ray.data.DataContext.get_current().enable_progress_bars = False
    size = (FRAME_SIZE_PX, FRAME_SIZE_PX)
    frames = ray.data.read_videos(
        [str(video) for video in race.videos], fps=round(race.frame_rate_hz), resize=size, include_paths=True
    )
    # With a whole core an actor, reading would never get one.
    actors = ray.data.ActorPoolStrategy(size=race.num_workers)
    features = frames.map_batches(Encode, batch_size=32, compute=actors, num_cpus=0.5)
    features.write_parquet(str(race.out / "features"))
    ray.shutdown()
    return Finished(frames=sum(pq.read_metadata(file).num_rows for file in (race.out / "features").glob("*.parquet")))


if __name__ == "__main__":
    run(ray_data)
