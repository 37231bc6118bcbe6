"""109 real clips, many of them odd or broken. Needs the shared collection beside the repository."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from indexer.errors import VideoError
from indexer.ingest.guard import GuardedDecoder

CLIPS = Path(__file__).resolve().parents[4] / "shared" / "data" / "videos"

pytestmark = [
    pytest.mark.shared,
    pytest.mark.skipif(not (CLIPS / "manifest.tsv").exists(), reason="needs ../shared/data/videos"),
]
FAILING = {
    "result.webm": "EmptyFile",
    "mov-tenc-only-encrypted.mp4": "Encrypted",
    "pmtchange.mp4": "NoFrames",
    "svq3_decoding_regression.mp4": "NoFrames",
    "header_only_4k.mp4": "NoFrames",
    "truncated_60pct_jesse_dance.mp4": "NotAVideo",
    "text_renamed.mp4": "NotAVideo",
    "random_bytes.avi": "NotAVideo",
    "al04_44_audio_only.mp4": "NoVideoStream",
}


@pytest.fixture(scope="module")
def guard():
    with GuardedDecoder(timeout_s=60) as guard:
        yield guard


@pytest.fixture(scope="module")
def clips():
    with open(CLIPS / "manifest.tsv", encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, delimiter="\t"))


def read(guard, clip):
    info, *frames, end = guard.read_video(str(CLIPS / clip["file"]), frame_rate_hz=1.0, size_px=224)
    return info, frames, end


def test_every_normal_and_odd_clip_gives_frames(guard, clips):
    for clip in clips:
        if clip["kind"] != "broken":
            _, frames, end = read(guard, clip)
            assert frames, clip["file"]
            assert all(frame.target_s < end.duration_s for frame in frames), clip["file"]


def test_every_broken_clip_gives_frames_and_a_warning_or_an_error(guard, clips):
    for clip in clips:
        if clip["kind"] != "broken":
            continue
        name = Path(clip["file"]).name
        if name in FAILING:
            with pytest.raises(VideoError) as caught:
                read(guard, clip)
            assert caught.value.kind == FAILING[name], name
        else:
            _, frames, end = read(guard, clip)
            assert frames, name
            assert end.warning, name


@pytest.mark.parametrize(
    ("name", "rotation_deg", "size"),
    [
        ("odd/video_0.mov", 0, (568, 320)),
        ("odd/video_270.mov", 270, (320, 568)),
        ("odd/hdr10tags-both.mkv", 270, (320, 560)),
        ("broken/displaymatrix.mp4", 90, (240, 160)),
    ],
)
def test_rotation_of_the_display_matrix_is_applied(guard, name, rotation_deg, size):
    info, _, _ = read(guard, {"file": name})

    assert (info.rotation_deg, (info.width, info.height)) == (rotation_deg, size)
