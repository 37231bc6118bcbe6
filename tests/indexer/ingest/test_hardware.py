"""Decoding on a GPU, against a driver that has none: `fake_nvdec.c` looks up the pictures that the CPU decoded.

FFmpeg, PyAV and the guarded child are the real ones, limits on memory included. What NVDEC itself makes of a picture
only `tests/indexer/test_on_gpu.py` can tell.
"""

from __future__ import annotations

import ctypes
import re
import shutil
import struct
import subprocess
import zlib
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest

from indexer.config import RunConfig, SamplingConfig
from indexer.errors import UsageError, VideoError, WorkerError
from indexer.ingest import hardware
from indexer.ingest.guard import GuardedDecoder
from indexer.ingest.leeway import Leeway
from indexer.ingest.sampled import SampledFrame
from indexer.pipeline import index_videos

needs_compiler = pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler to build the driver with")


@pytest.fixture(scope="session")
def driver(tmp_path_factory):
    folder = tmp_path_factory.mktemp("driver")
    source = Path(__file__).with_name("fake_nvdec.c")
    subprocess.run(["cc", "-shared", "-fPIC", "-o", folder / "libcuda.so.1", source], check=True)
    shutil.copy(folder / "libcuda.so.1", folder / "libnvcuvid.so.1")
    return folder


@pytest.fixture
def gpu(driver, tmp_path, monkeypatch):
    """A driver that knows the pictures of the videos it is told; its calls are in `log`."""
    table, log = tmp_path / "pictures", tmp_path / "calls"
    table.write_bytes(b"".join(_pictures(hardware._some_packets(), av.CodecContext.create("h264", "r"))))
    monkeypatch.setenv("LD_LIBRARY_PATH", str(driver))
    monkeypatch.setenv("FAKE_NVDEC", str(table))
    monkeypatch.setenv("FAKE_NVDEC_LOG", str(log))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)

    def knows(path, *, but=(), deadly=()):
        """All its pictures, but for those with these places in the order of time; others end the process."""
        with av.open(path) as container:
            stream = container.streams.video[0]
            pictures = list(_pictures(list(container.demux(stream)), stream.codec_context))
        with open(table, "ab") as file:
            for number, picture in enumerate(pictures):
                if number in deadly:
                    picture = picture[:4] + bytes(8)
                file.write(b"" if number in but else picture)
        log.unlink(missing_ok=True)

    knows.log = log
    return knows


def _pictures(packets, context):
    """What the driver finds each picture of an H.264 stream by, with its pixels, in order of time."""
    slices = {packet.pts: _slices(bytes(packet), is_mp4=bool(context.extradata)) for packet in packets if packet.size}
    fed = [*(packet for packet in packets if packet.size), None]
    for frame in [frame for packet in fed for frame in context.decode(packet)]:
        pixels = frame.reformat(format="nv12").to_ndarray()
        yield struct.pack("=III", zlib.crc32(slices[frame.pts]), frame.width, frame.height) + pixels.tobytes()


def _slices(data, *, is_mp4):
    """The NAL units of types 1 and 5, each behind a start code (ITU-T H.264, 7.3.1 and annex B)."""
    units = []
    if is_mp4:
        while data:
            (length,) = struct.unpack(">I", data[:4])
            units.append(data[4 : 4 + length])
            data = data[4 + length :]
    else:
        units = re.split(b"\0?\0\0\1", data)[1:]
    return b"".join(b"\0\0\1" + unit for unit in units if unit[0] & 31 in (1, 5))


def read(path, decoder, **options):
    with GuardedDecoder(decoder=decoder) as guard:
        guard.require_hardware()
        items = list(guard.read_video(path, **{"frame_rate_hz": 1, "size_px": 64, "moment_s": 2, **options}))
    assert guard.num_crashes == guard.num_timeouts == 0
    return items


def assert_equal(items, others):
    assert len(items) == len(others)
    for item, other in zip(items, others, strict=True):
        if isinstance(item, SampledFrame):
            assert (item.time_s, item.target_s, item.thumbnail) == (other.time_s, other.target_s, other.thumbnail)
            np.testing.assert_array_equal(item.pixels, other.pixels)
        else:
            assert item == other


@pytest.fixture
def write(synthetic):
    """A video whose pictures are large enough for the GPU."""

    def write(name, times_ms=range(0, 4000, 100), **options):
        return synthetic.write(name, times_ms, **{"width": 960, "height": 540, **options})

    return write


@needs_compiler
@pytest.mark.parametrize("pix_fmt", ["yuv420p", "yuvj420p"])
@pytest.mark.parametrize("leeway", [Leeway(), Leeway(key_frame_s=1.0, earlier_s=0.5)])
def test_gpu_gives_what_the_cpu_gives(write, gpu, leeway, pix_fmt):
    options = {"bf": "2", "g": "15"}
    path = write("a.mp4", pix_fmt=pix_fmt, options=options, rotation_ccw_deg=90, sound_s=1.0)
    gpu(path)
    items = read(path, "nvdec", leeway=leeway)
    assert items[-1].on_hardware
    others = read(path, "cpu", leeway=leeway)
    assert not others[-1].on_hardware
    assert_equal(items, others)


@needs_compiler
def test_gpu_finds_its_way_after_jumps(write, gpu):
    path = write("a.mp4", range(0, 60_000, 1000), options={"g": "3"})
    gpu(path)
    items = read(path, "nvdec", frame_rate_hz=1 / 20)
    assert items[-1].on_hardware
    assert items[-1].num_coded is None  # packets have been passed by
    assert_equal(items, read(path, "cpu", frame_rate_hz=1 / 20))


@needs_compiler
def test_only_frames_that_are_looked_at_are_copied(write, gpu):
    path = write("a.mp4", options={"bf": "0", "x264-params": "scenecut=0"})
    gpu(path)
    read(path, "nvdec", moment_s=None)
    calls = gpu.log.read_text().removeprefix("dddcccccc")  # the try at the start
    assert calls.count("c") == 4 * 2  # four seconds, two planes each
    assert calls.count("d") > 30


@needs_compiler
@pytest.mark.parametrize("unknown", [0, 7, 25])
def test_cpu_goes_on_where_the_gpu_fails(write, gpu, unknown):
    path = write("a.mp4")
    gpu(path, but=[unknown])
    items = read(path, "nvdec")
    assert not items[-1].on_hardware
    assert_equal(without_effort(items), without_effort(read(path, "cpu")))


@needs_compiler
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("a.mp4", {"pix_fmt": "yuv444p"}),  # FFmpeg itself leaves it to the CPU
        ("a.mp4", {"pix_fmt": "yuv420p10le"}),
        ("a.mp4", {"codec": "mpeg4"}),  # not defined to the last bit
        ("a.avi", {}),  # without presentation times
        ("a.mp4", {"width": 320, "height": 240}),  # too small to pay
    ],
)
def test_cpu_decodes_what_the_gpu_does_not(write, gpu, name, options):
    path = write(name, **options)
    items = read(path, "nvdec")
    assert not items[-1].on_hardware
    assert_equal(without_effort(items), without_effort(read(path, "cpu")))


def without_effort(items):
    """All but how many frames were decoded, the GPU's included."""
    return [*items[:-1], replace(items[-1], num_decoded=0)]


@needs_compiler
def test_cpu_says_what_is_wrong_with_a_file(tmp_path, gpu):
    path = tmp_path / "a.mp4"
    path.write_bytes(b"no video" * 100)
    with pytest.raises(VideoError, match="not a video file"):
        read(str(path), "nvdec")


@needs_compiler
def test_memory_of_the_child_is_limited_beside_what_cuda_reserves(write, gpu):
    path = write("a.mp4", width=3840, height=2160, times_ms=range(0, 500, 100))
    with GuardedDecoder(decoder="nvdec", memory_bytes=1 << 20) as guard:
        guard.require_hardware()  # which reserves 64 GiB of addresses
        with pytest.raises(VideoError, match="no frame could be decoded"):
            list(guard.read_video(path, frame_rate_hz=10, size_px=64))
    with GuardedDecoder(decoder="nvdec", memory_bytes=300 << 20) as guard:
        assert_equal(
            list(guard.read_video(path, frame_rate_hz=10, size_px=64)),
            read(path, "cpu", frame_rate_hz=10, moment_s=None),
        )


@needs_compiler
def test_cpu_goes_on_where_the_driver_crashes(write, gpu):
    path = write("a.mp4")
    gpu(path, deadly=[25])
    with GuardedDecoder(decoder="nvdec") as guard:
        items = list(guard.read_video(path, frame_rate_hz=1, size_px=64, moment_s=2))
    assert guard.num_crashes == 1
    assert not items[-1].on_hardware
    assert_equal(items, read(path, "cpu"))


@needs_compiler
def test_index_of_a_gpu_is_that_of_the_cpu(write, gpu, rows_of, tmp_path):
    for name in ("a.mp4", "b.mkv"):
        gpu(write(name))
    for decoder in ("nvdec", "cpu"):
        run = RunConfig(decoder=decoder)
        sources, into = [str(tmp_path / "*.m*")], tmp_path / decoder
        summary = index_videos(sources, into, model="tiny_test", sampling=SamplingConfig(), run=run)
        assert summary.profile["num_on_gpu"] == (2 if decoder == "nvdec" else 0)
    assert rows_of("nvdec") == rows_of("cpu") != []


@needs_compiler
def test_retry_decodes_on_the_gpu_as_index_does(write, gpu, videobert, rows_of, tmp_path):
    for into in ("nvdec", "cpu"):
        (tmp_path / "a.mp4").write_text("no video")
        assert videobert("index", tmp_path / "a.mp4", "--into", tmp_path / into, "--model", "tiny_test")[0] == 3
        gpu(write("a.mp4"))
        code, out, err = videobert("retry", tmp_path / into, "--decoder", into)
        assert (code, out.split(",")[0]) == (0, "1 indexed")
        assert ("decoded by GPUs: 1 videos" in err) == gpu.log.exists() == (into == "nvdec")
    assert rows_of("nvdec") == rows_of("cpu") != []


def test_retry_refuses_a_decoder_that_there_is_not(videobert, tmp_path):
    code, _, err = videobert("retry", tmp_path, "--decoder", "vaapi")
    assert (code, err) == (2, "error: the decoder must be cpu or nvdec, got 'vaapi'\n")


@needs_compiler
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # Ray leaves files and processes open
def test_workers_of_ray_find_the_gpus(write, gpu, tmp_path):
    path = write("a.mp4")
    gpu(path)
    run = RunConfig(decoder="nvdec", num_workers=1)
    summary = index_videos([path], tmp_path / "index", model="tiny_test", sampling=SamplingConfig(), run=run)
    assert (summary.indexed, summary.profile["num_on_gpu"]) == (1, 1)


@needs_compiler
def test_run_ends_before_it_begins_when_gpus_are_hidden(write, gpu, tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with pytest.raises(WorkerError, match=r"shows no GPU .*: CUDA_VISIBLE_DEVICES is ''; or leave --decoder out"):
        index_with_nvdec(write("a.mp4"), tmp_path / "index")
    assert not (tmp_path / "index").exists()


@needs_compiler
def test_driver_without_video_part_is_named(write, driver, tmp_path, monkeypatch):
    shutil.copy(driver / "libcuda.so.1", tmp_path)
    monkeypatch.setenv("LD_LIBRARY_PATH", str(tmp_path))
    with pytest.raises(WorkerError, match="add video to NVIDIA_DRIVER_CAPABILITIES"):
        index_with_nvdec(write("a.mp4"), tmp_path / "index")


@needs_compiler
def test_gpu_that_decodes_other_pixels_is_refused(write, gpu, tmp_path, monkeypatch):
    table = tmp_path / "pictures"
    content = bytearray(table.read_bytes())
    content[100] ^= 1
    table.write_bytes(content)
    with pytest.raises(WorkerError, match=r"does not decode H.264 as the CPU does"):
        index_with_nvdec(write("a.mp4"), tmp_path / "index")


@needs_compiler
def test_gpu_that_decodes_nothing_is_refused(write, gpu, tmp_path):
    (tmp_path / "pictures").write_bytes(b"")
    with pytest.raises(WorkerError, match=r"the GPU does not decode H.264"):
        index_with_nvdec(write("a.mp4"), tmp_path / "index")


def test_run_ends_before_it_begins_without_a_driver(write, tmp_path, monkeypatch):
    monkeypatch.setattr(ctypes, "CDLL", no_library)
    with pytest.raises(hardware.HardwareError, match=r"no NVIDIA driver: .* \(libcuda.so.1 cannot be loaded\)"):
        hardware.HardwareDecoder()


def no_library(name):
    raise OSError(name)


def index_with_nvdec(video, into):
    run = RunConfig(decoder="nvdec")
    return index_videos([video], into, model="tiny_test", sampling=SamplingConfig(), run=run)


def test_unknown_decoder_is_refused():
    with pytest.raises(UsageError, match="the decoder must be cpu or nvdec, got 'vaapi'"):
        RunConfig(decoder="vaapi")
