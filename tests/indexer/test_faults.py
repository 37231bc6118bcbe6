"""Decoders that hang, spin, eat memory or crash: each costs its own video one more try, and no other video anything.

The faults are put into the real decoding child from outside: Python runs `sitecustomize.py` from PYTHONPATH when a
child starts, and that makes FFmpeg's frames of videos called `FAULT-PLACE.mp4` go wrong at the first frame or later.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from indexer.config import RunConfig
from indexer.pipeline import retry_videos
from indexer.store.index import IndexStore
from indexer.store.verify import verify

SITECUSTOMIZE = """
import sys

def inject():
    import collections, ctypes, itertools, os, signal
    import numpy as np
    import indexer.ingest.video as video
    from indexer.ingest.opened import OpenedVideo

    folder = os.path.dirname(__file__)
    real_count, real_video, current, hoard = OpenedVideo.count, video.read_video, {}, []
    with open(os.path.join(folder, "starts"), "a") as starts:
        starts.write("x")

    def eat():
        while True:
            hoard.append(np.empty(256 << 20, np.uint8))  # never given back

    def crash_once():
        try:
            open(os.path.join(folder, "crashed"), "x").close()
        except FileExistsError:
            return
        os.kill(os.getpid(), signal.SIGKILL)

    faults = {
        "hang": lambda: ctypes.CDLL(None).pause(),  # in C, without Python's lock
        "spin": lambda: collections.deque(itertools.count(), maxlen=0),  # in C, holding Python's lock
        "eat": eat,
        "segv": lambda: ctypes.string_at(0),
        "once": crash_once,
    }

    def count(self, frame):
        fault, _, place = os.path.basename(current["path"]).removesuffix(".mp4").partition("-")
        if self.num_decoded == {"first": 0, "middle": 4}.get(place):
            faults[fault]()
        real_count(self, frame)

    def read_video(path, **kwargs):
        current["path"] = path
        return real_video(path, **kwargs)

    OpenedVideo.count, video.read_video = count, read_video

if "indexer.ingest.decode_worker" in sys.orig_argv:
    inject()
"""
REASONS = {
    "hang": ("TimedOut", "no progress for"),
    "spin": ("TimedOut", "no progress for"),
    "eat": ("OutOfMemory", "more memory than the decoder may use"),
    "segv": ("DecoderCrashed", "SIGSEGV"),
}
GOOD = ("a.mp4", "b.mp4", "c.mp4", "once-middle.mp4", "z.mp4")


@pytest.fixture
def injected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Puts the faults in place: `num_children()` counts decoding children, `end()` takes the faults away."""
    folder = tmp_path / "injected"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(SITECUSTOMIZE)
    monkeypatch.setenv("PYTHONPATH", str(folder))
    return SimpleNamespace(
        num_children=lambda: len((folder / "starts").read_text()), end=lambda: monkeypatch.delenv("PYTHONPATH")
    )


@pytest.fixture
def with_faults(synthetic: Any) -> Callable[..., Path]:
    """A folder of five good videos, the shortest of which is encoded last, and one for each fault."""

    def make(*faults: str) -> Path:
        folder: Path = synthetic.folder / "videos"
        folder.mkdir()
        for name in [*GOOD, *(f"{fault}.mp4" for fault in faults)]:
            synthetic.write(f"videos/{name}", range(0, 1_000 if name == "z.mp4" else 4_000, 100))
        return folder

    return make


def ledger(index: Path) -> dict[str, dict[str, Any]]:
    return {Path(row["uri"]).name: row for row in IndexStore.open(index).ledger.snapshot().videos.to_pylist()}


def assert_only_the_faulty_failed(index: Path, faults: tuple[str, ...]) -> None:
    failed = {name: row for name, row in ledger(index).items() if row["status"] == "failed"}
    assert sorted(failed) == sorted(f"{fault}.mp4" for fault in faults)
    for name, row in failed.items():
        kind, said = REASONS[name.partition("-")[0]]
        assert (row["error_stage"], row["error_kind"], row["attempts"]) == ("decode", kind, 1), name
        assert said in row["error_message"], name
    assert verify(IndexStore.open(index)) == []


def assert_as_without_faults(
    videos: Path, injected: SimpleNamespace, run_index: Any, rows_of: Any, index: Path
) -> None:
    """What was indexed is what an undisturbed run makes, and `retry` brings in the rest once the fault is gone."""
    injected.end()
    run_index(videos, into="undisturbed")
    expected = rows_of("undisturbed")
    assert rows_of() == [row for row in expected if Path(row["uri"]).name in GOOD]
    retry_videos(index, run=RunConfig(), in_process=True)
    assert rows_of() == expected


def test_decoder_faults_cost_their_own_video_one_more_try_and_no_other_anything(
    with_faults, injected, run_index, rows_of, tmp_path
):
    faults = ("hang-first", "segv-middle", "eat-middle")
    videos = with_faults(*faults)
    run = run_index(videos, decode_timeout_s=2.5)
    assert (run.indexed, run.failed) == (len(GOOD), len(faults))
    # The first, two for each fault, and one more for the video whose decoder crashed only once.
    assert injected.num_children() == 1 + 2 * len(faults) + 1
    assert_only_the_faulty_failed(tmp_path / "index", faults)
    assert_as_without_faults(videos, injected, run_index, rows_of, tmp_path / "index")


@pytest.mark.slow
@pytest.mark.parametrize("on_ray", [False, True], ids=["here", "ray"])
def test_decoder_faults_of_every_kind_at_every_place(with_faults, injected, run_index, rows_of, tmp_path, on_ray):
    faults = tuple(f"{fault}-{place}" for fault in REASONS for place in ("first", "middle"))
    videos = with_faults(*faults)
    run = run_index(videos, decode_timeout_s=5, on_ray=on_ray)
    assert (run.indexed, run.failed) == (len(GOOD), len(faults))
    num_needed = 1 + 2 * len(faults) + 1
    assert num_needed - 1 <= injected.num_children() <= num_needed + (1 if on_ray else 0)  # two workers, two children
    assert_only_the_faulty_failed(tmp_path / "index", faults)
    assert_as_without_faults(videos, injected, run_index, rows_of, tmp_path / "index")
