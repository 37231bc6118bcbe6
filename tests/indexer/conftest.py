"""A folder of small synthetic videos and a way to index it with the tiny model, in this process."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from indexer.config import RunConfig, SamplingConfig
from indexer.pipeline import RunSummary, index_videos
from indexer.store.index import IndexStore


@pytest.fixture
def videos(synthetic) -> Path:
    """a.mp4 of 12 s (two moments), b.mkv of 3 s with a subtitle file, sub/c.avi of 1 s."""
    folder = synthetic.folder / "videos"
    (folder / "sub").mkdir(parents=True)
    synthetic.write("videos/a.mp4", range(0, 12_000, 100))
    synthetic.write("videos/b.mkv", range(0, 3_000, 100), title="The second")
    synthetic.write("videos/sub/c.avi", range(0, 1_000, 40), codec="mpeg4")
    (folder / "b.srt").write_text("1\n00:00:00,500 --> 00:00:02,000\nblocks in black and white\n")
    return folder


@pytest.fixture
def run_index(tmp_path: Path) -> Callable[..., RunSummary]:
    """Indexes into tmp_path/index without Ray; keyword arguments go to `RunConfig` or `SamplingConfig`."""

    def run(*sources: Any, into: str = "index", on_ray: bool = False, **options: Any) -> RunSummary:
        sampling = {name: options.pop(name) for name in ("frame_rate_hz", "segment_length_s") if name in options}
        on_progress = options.pop("on_progress", lambda progress: None)
        return index_videos(
            [str(source) for source in sources],
            tmp_path / into,
            model="tiny_test",
            sampling=SamplingConfig(**sampling),
            run=RunConfig(**options),
            in_process=not on_ray,
            on_progress=on_progress,
        )

    return run


@pytest.fixture
def rows_of(tmp_path: Path) -> Callable[..., list[dict[str, Any]]]:
    """Visible moments of tmp_path/index with their video's URI, by URI and time; batch ids and clock times left out."""

    def read(into: str = "index", columns: Iterable[str] | None = None) -> list[dict[str, Any]]:
        snapshot = IndexStore.open(tmp_path / into).snapshot()
        rows = snapshot.read(range(snapshot.num_segments), snapshot_columns()).to_pylist()
        for row, video_row in zip(rows, snapshot.rows.video_rows, strict=True):
            row["uri"] = snapshot.videos["uri"][int(video_row)].as_py()
        rows.sort(key=lambda row: (row["uri"], row["start_s"]))
        return [{name: row[name] for name in columns} for row in rows] if columns else rows

    return read


def snapshot_columns() -> list[str]:
    from indexer import schema

    return [name for name in schema.SEGMENTS.names if name != "batch_id"]
