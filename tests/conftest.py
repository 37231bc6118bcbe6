"""Videos that the tests make themselves: every frame shows its own number as 4 x 4 black and white blocks."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

TIME_BASE = Fraction(1, 1000)
GRID = 4


class SyntheticVideos:
    """Writes videos into a folder, and reads frame numbers back from pixels of any size."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def write(
        self,
        name: str,
        times_ms: Sequence[int],
        *,
        codec: str = "libx264",
        width: int = 128,
        height: int = 96,
        pix_fmt: str = "yuv420p",
        rotation_ccw_deg: int = 0,
        mirrored: bool = False,
        sound_s: float = 0.0,
        options: dict[str, str] | None = None,
        title: str | None = None,
        numbers: Sequence[int] | None = None,
    ) -> str:
        """Frame i shows `numbers[i]` (default: i) and has the PTS `times_ms[i]`; the extension sets the container."""
        path = self.folder / name
        with av.open(str(path), "w") as container:
            if title is not None:
                container.metadata["title"] = title
            stream = container.add_stream(codec, rate=25, options=options or {})
            stream.width, stream.height, stream.pix_fmt = width, height, pix_fmt
            stream.codec_context.time_base = TIME_BASE
            if rotation_ccw_deg or mirrored:
                stream.set_display_rotation(rotation_ccw_deg, hflip=mirrored)
            sound = container.add_stream("aac", rate=16000, layout="mono") if sound_s else None
            for time_ms, number in zip(times_ms, numbers or range(len(times_ms)), strict=True):
                frame = av.VideoFrame.from_ndarray(self.picture(number, width, height), format="rgb24")
                frame.pts, frame.time_base = time_ms, TIME_BASE
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
            if sound is not None:
                for packet in _silence(sound, sound_s):
                    container.mux(packet)
        return str(path)

    @staticmethod
    def picture(number: int, width: int = 128, height: int = 96) -> np.ndarray:
        """uint8 [height, width, 3]; block (row, column) is white where bit 4 * row + column of the number is set."""
        bits = np.array([number >> i & 1 for i in range(GRID * GRID)], np.uint8).reshape(GRID, GRID)
        rows, columns = np.arange(height) * GRID // height, np.arange(width) * GRID // width
        return np.repeat(bits[rows][:, columns, None] * np.uint8(255), 3, axis=2)

    @staticmethod
    def number(pixels: np.ndarray) -> int:
        """The number that uint8 [height, width, 3] shows."""
        height, width = pixels.shape[:2]
        rows, columns = (
            (2 * np.arange(GRID) + 1) * height // (2 * GRID),
            (2 * np.arange(GRID) + 1) * width // (2 * GRID),
        )
        bits = pixels[rows][:, columns].mean(axis=2) > 127
        return int(sum(1 << i for i, bit in enumerate(bits.ravel()) if bit))


def _silence(stream: av.AudioStream, seconds: float) -> list[av.Packet]:
    packets, position = [], 0
    while position < seconds * 16000:
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = 16000, position, Fraction(1, 16000)
        packets += stream.encode(frame)
        position += 1024
    return packets + stream.encode(None)


@pytest.fixture
def synthetic(tmp_path: Path) -> SyntheticVideos:
    """Makes videos in the test's own folder: `synthetic.write("a.mp4", range(0, 2000, 40))`."""
    return SyntheticVideos(tmp_path)


@pytest.fixture(scope="session")
def make_videos() -> type[SyntheticVideos]:
    """For fixtures that outlive one test: `make_videos(folder).write(...)`."""
    return SyntheticVideos
