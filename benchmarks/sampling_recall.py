"""What each way of sampling frames finds, asked thousands of sentences: recall of moments and of videos.

    python -m benchmarks.sampling_recall --photographs FILE.parquet    # columns jpeg and captions (a list of sentences)

Nobody has captioned thousands of moments of real videos. So videos are put together from captioned photographs: shots
of one to six seconds in which the camera moves, parted by cuts or by cross-fades, which have no key frame; 20 s, H.264
with x264's usual key frames. Every caption is then asked, and the moment (of ten seconds) that holds most of its
photograph should be among the first ten, or its video. Photographs that the model was trained on are found more easily;
the ways are compared on the same ones, query by query.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
from PIL import Image

from benchmarks.report import report
from benchmarks.sampling import no_twins
from indexer.config import DEFAULT_MODEL, SAMPLING_MODES, RunConfig, SamplingConfig
from indexer.pipeline import index_videos
from indexer.store.index import IndexStore
from model.weights import load_text_encoder

_WIDTH_PX, _HEIGHT_PX, _RATE_HZ, _LENGTH_S = 320, 240, 25, 20.0
_SHOTS_S, _FADE_S = (1.0, 6.0), 0.8
_EVERY_FRAME = "exact, all encoded"


@dataclass(frozen=True, kw_only=True)
class Shot:
    """A photograph and when it is shown, in seconds; it fades in over the last one for `fade_s`."""

    photograph: int
    start_s: float
    end_s: float
    fade_s: float


@dataclass(frozen=True, kw_only=True)
class Moments:
    """What an index holds: unit vectors [M, E], and of each moment its video's name and its start in seconds."""

    vectors: np.ndarray
    videos: list[str]
    starts_s: np.ndarray
    num_decoded: int
    num_encoded: int


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photographs", type=Path, required=True, help="Parquet file: jpeg, captions")
    parser.add_argument("--videos", type=int, default=200)
    parser.add_argument("--model", default=DEFAULT_MODEL)
    given = parser.parse_args()
    drawn = np.random.default_rng(0)
    rows = pq.read_table(given.photographs, columns=["jpeg", "captions"])
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "videos"
        folder.mkdir()
        order = iter(drawn.permutation(len(rows)).tolist())
        shots = {f"{number:04d}.mp4": _plan(order, drawn) for number in range(given.videos)}
        for name, plan in shots.items():
            _write(folder / name, plan, rows, drawn)
        asked = [
            (caption, name, shot)
            for name, plan in shots.items()
            for shot in plan
            for caption in rows["captions"][shot.photograph].as_py()
        ]
        sentences = load_text_encoder(given.model).encode([caption for caption, _, _ in asked]).cpu().numpy()
        figures: dict[str, Any] = {
            "videos": len(shots),
            "photographs": sum(map(len, shots.values())),
            "queries": len(asked),
        }
        found: dict[str, np.ndarray] = {}
        for way in (_EVERY_FRAME, *SAMPLING_MODES):
            moments = _index(folder, way, given.model, Path(scratch) / way)
            ranks = _ranks(moments, sentences, [(name, _middle_s(shot)) for _, name, shot in asked])
            found[way] = ranks[0] < 10
            figures[way] = {
                "frames decoded": moments.num_decoded,
                "frames encoded": moments.num_encoded,
                **{
                    f"{what} R@{k}": f"{np.mean(rank < k):.1%}"
                    for what, rank in zip(("moment", "video"), ranks, strict=True)
                    for k in (1, 10)
                },
                "moment R@10, less than with every frame": _difference(found[_EVERY_FRAME], found[way]),
            }
        report("sampling_recall", figures)


def _plan(order: Iterator[int], drawn: np.random.Generator) -> list[Shot]:
    """Shots of one video, end to end."""
    shots: list[Shot] = []
    at_s = 0.0
    while at_s < _LENGTH_S:
        end_s = min(_LENGTH_S, at_s + drawn.uniform(*_SHOTS_S))
        fade_s = _FADE_S if shots and drawn.random() < 0.5 else 0.0
        shots.append(Shot(photograph=next(order), start_s=at_s, end_s=end_s, fade_s=fade_s))
        at_s = end_s
    return [shot for shot in shots if shot.end_s - shot.start_s >= _SHOTS_S[0]]


def _middle_s(shot: Shot) -> float:
    return (shot.start_s + shot.end_s) / 2


def _write(path: Path, shots: Sequence[Shot], rows: Any, drawn: np.random.Generator) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=_RATE_HZ, options={"preset": "veryfast"})
        stream.width, stream.height, stream.pix_fmt = _WIDTH_PX, _HEIGHT_PX, "yuv420p"
        for picture in _pictures(shots, rows, drawn):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))


def _pictures(shots: Sequence[Shot], rows: Any, drawn: np.random.Generator) -> Iterator[np.ndarray]:
    before: np.ndarray | None = None
    for shot in shots:
        wide = Image.open(io.BytesIO(rows["jpeg"][shot.photograph].as_py())).convert("RGB")
        pixels = np.asarray(wide.resize((_WIDTH_PX * 5 // 4, _HEIGHT_PX * 5 // 4)))
        room = np.array([pixels.shape[0] - _HEIGHT_PX, pixels.shape[1] - _WIDTH_PX])
        start, end = drawn.uniform(0, room), drawn.uniform(0, room)
        count = round((shot.end_s - shot.start_s) * _RATE_HZ)
        for number in range(count):
            y, x = (start + (end - start) * number / count).astype(int)
            picture = pixels[y : y + _HEIGHT_PX, x : x + _WIDTH_PX]
            share = number / (shot.fade_s * _RATE_HZ) if shot.fade_s else 1.0
            if before is not None and share < 1:
                picture = (share * picture + (1 - share) * before).astype(np.uint8)
            yield np.ascontiguousarray(picture)
        before = picture.astype(float)


def _index(folder: Path, way: str, model: str, into: Path) -> Moments:
    sampling = SamplingConfig(mode=way if way in SAMPLING_MODES else "exact")
    with no_twins() if way == _EVERY_FRAME else contextlib.nullcontext():
        index_videos([str(folder)], into, model=model, sampling=sampling, run=RunConfig())
    snapshot = IndexStore.open(into).snapshot()
    table = snapshot.read(range(snapshot.num_segments), ["video_id", "start_s", "embedding"])
    videos = snapshot.videos
    names = {row["video_id"]: row["uri"].rpartition("/")[2] for row in videos.select(["video_id", "uri"]).to_pylist()}
    return Moments(
        vectors=np.array(table["embedding"].to_pylist(), np.float32),
        videos=[names[video] for video in table["video_id"].to_pylist()],
        starts_s=table["start_s"].to_numpy(),
        num_decoded=pc.sum(videos["num_decoded"]).as_py(),
        num_encoded=pc.sum(videos["num_encoded"]).as_py(),
    )


def _ranks(
    moments: Moments, sentences: np.ndarray, wanted: Sequence[tuple[str, float]]
) -> tuple[np.ndarray, np.ndarray]:
    """Places, from 0, of the right moment and of the first moment of the right video, for each sentence."""
    order = np.argsort(-sentences @ moments.vectors.T, axis=1, kind="stable")
    video = np.array(moments.videos)[order] == np.array([name for name, _ in wanted])[:, None]
    at_s = np.array([time_s for _, time_s in wanted])[:, None]
    begun_s = at_s - moments.starts_s[order]
    moment = video & (begun_s >= 0) & (begun_s < SamplingConfig.segment_length_s)
    return moment.argmax(axis=1), video.argmax(axis=1)


def _difference(reference: np.ndarray, found: np.ndarray) -> str:
    """In points, with a 95 % interval, of pairs of answers to the same query."""
    difference = 100 * (found.astype(float) - reference)
    return f"{difference.mean():+.2f} ± {1.96 * difference.std() / len(difference) ** 0.5:.2f}"


if __name__ == "__main__":
    main()
