"""How much of an object is fetched to read it as a video."""

from __future__ import annotations

import io
from pathlib import Path

import av
import numpy as np
import pytest

from indexer.errors import VideoError
from indexer.ingest.guard import GuardedDecoder
from indexer.ingest.video import SampledFrame, read_video
from indexer.query.clips import make_clip


def noise(seed: int, width: int = 320, height: int = 240) -> av.VideoFrame:
    """A picture that no codec can make small."""
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    return av.VideoFrame.from_ndarray(pixels, format="rgb24")


def film(path: Path, num_frames: int, *, faststart: bool = False) -> bytes:
    """About 0.2 MB a frame, one frame a second, each a key frame."""
    flags = {"movflags": "faststart"} if faststart else {}
    with av.open(str(path), "w", options=flags) as container:
        stream = container.add_stream("mpeg4", rate=1, options={"g": "1", "qscale": "1"})
        stream.width, stream.height, stream.pix_fmt, stream.bit_rate = 320, 240, "yuv420p", 20_000_000
        for number in range(num_frames):
            container.mux(stream.encode(noise(number)))
        container.mux(stream.encode(None))
    return path.read_bytes()


@pytest.mark.parametrize(("name", "faststart"), [("a.mp4", True), ("a.mp4", False), ("a.mkv", False), ("a.avi", False)])
def test_ordinary_video_is_fetched_about_once_and_gives_the_same_frames(bucket, s3, tmp_path, name, faststart):
    content = film(tmp_path / name, 40, faststart=faststart)
    (bucket / name).write_bytes(content)
    options = {"frame_rate_hz": 1, "size_px": 32}

    with GuardedDecoder() as decoder:
        ours = list(decoder.read_video(str(bucket / name), **options))

    assert repr(ours) == repr(list(read_video(str(tmp_path / name), **options)))
    assert sum(isinstance(item, SampledFrame) for item in ours) == 40
    assert len(content) <= s3.num_bytes(name) + 1000 <= 1.05 * len(content)


def test_clip_from_the_middle_fetches_a_small_part(bucket, s3, tmp_path):
    content = film(tmp_path / "long.mp4", 200)
    (bucket / "long.mp4").write_bytes(content)

    clip = make_clip(str(bucket / "long.mp4"), 100, 102)

    assert b"ftyp" in clip[:40]
    assert len(content) > 15_000_000
    assert s3.num_bytes("long.mp4") < len(content) / 5


def test_file_without_picture_is_refused_after_a_look(bucket, s3):
    file = io.BytesIO()
    with av.open(file, "w", format="wav") as container:
        stream = container.add_stream("pcm_s16le", rate=48_000, layout="stereo")
        sound = np.random.default_rng(0).integers(-(2**15), 2**15, (1, 2 * 48_000), np.int16)
        for _ in range(60):
            frame = av.AudioFrame.from_ndarray(sound, format="s16", layout="stereo")
            frame.sample_rate = 48_000
            container.mux(stream.encode(frame))
    (bucket / "sound.mp4").write_bytes(file.getvalue())

    with pytest.raises(VideoError, match="no video stream"):
        list(read_video(str(bucket / "sound.mp4"), frame_rate_hz=1, size_px=32))
    assert len(file.getvalue()) > 11_000_000
    assert s3.num_bytes("sound.mp4") < len(file.getvalue()) / 5


@pytest.mark.parametrize("inner", ["file://{path}", "{path}"])
def test_playlist_in_a_bucket_opens_no_file_of_this_machine(bucket, synthetic, inner):
    path = synthetic.write("inner.ts", range(0, 1000, 100))
    playlist = f"#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:1.0,\n{inner.format(path=path)}\n#EXT-X-ENDLIST\n"
    (bucket / "a.m3u8").write_bytes(playlist.encode())
    (bucket / "b.mp4").write_bytes(f"ffconcat version 1.0\nfile '{path}'\n".encode())
    for name in ("a.m3u8", "b.mp4"):
        with pytest.raises(VideoError):
            list(read_video(str(bucket / name), frame_rate_hz=1, size_px=32))


def test_missing_and_empty_objects_fail_at_reading(bucket):
    (bucket / "empty.mp4").write_bytes(b"")
    for name, kind in (("none.mp4", "NotFound"), ("empty.mp4", "EmptyFile")):
        with pytest.raises(VideoError) as caught:
            list(read_video(str(bucket / name), frame_rate_hz=1, size_px=32))
        assert (caught.value.stage, caught.value.kind) == ("read", kind)
