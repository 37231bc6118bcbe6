"""The machine around a run misbehaves: the disk fills up or is read-only, the clock jumps, files change while read."""

from __future__ import annotations

import contextlib
import importlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import indexer.batches
from indexer import VideoIndex
from indexer.errors import StorageError, VideoBertSearchError
from indexer.ingest.guard import GuardedDecoder
from indexer.store.compact import compact
from indexer.store.index import IndexStore
from indexer.store.verify import verify

ROOT = Path(__file__).parents[2]
DISK_BYTES = 8 << 20


def _slow(value: Any) -> Any:
    return pytest.param(value, marks=pytest.mark.slow)


def mount(*arguments: str) -> bool:
    """Whether it worked; only root may, and not in every container."""
    with contextlib.suppress(OSError):
        return subprocess.run(["mount", *arguments], capture_output=True, check=False).returncode == 0
    return False


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, of 8 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if not mount("-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(folder)):
        pytest.skip("mounting a small disk is not allowed here; the file size limit below stands in for it")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(disk: Path) -> None:
    """Takes all that is free, to the last byte."""
    with open(disk / "filler", "ab", buffering=0) as file, contextlib.suppress(OSError):
        for size in (1 << 16, 1):
            with contextlib.suppress(OSError):
                while True:
                    file.write(b"x" * size)


@pytest.fixture
def fill_before(disk: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """`fill_before("module:Class.function")`: the disk is full from the first call of it on."""

    def arrange(where: str) -> None:
        module, _, names = where.partition(":")
        owner: Any = importlib.import_module(module)
        *path, name = names.split(".")
        for part in path:
            owner = getattr(owner, part)
        real = getattr(owner, name)

        def full(*arguments: Any, **options: Any) -> Any:
            fill(disk)
            return real(*arguments, **options)

        monkeypatch.setattr(owner, name, full)

    return arrange


def assert_sound(index: Path) -> None:
    assert verify(IndexStore.open(index)) == []


@pytest.mark.parametrize(
    "where",
    [
        "indexer.batches:write_segment_file",
        "indexer.store.segments_table:SegmentsTable.add",
        "indexer.store.ledger:Ledger.commit",
        "indexer.store.builds:build_vector_file",
        _slow("indexer.store.vector_writer:_write_npy"),
        _slow("indexer.store.keyword_files:_database"),
    ],
)
def test_full_disk_stops_the_run_and_the_next_goes_on(
    where, videos, synthetic, disk, fill_before, run_index, rows_of, tmp_path, monkeypatch
):
    index = disk / "index"
    into = os.path.relpath(index, tmp_path)
    run_index(videos / "b.mkv", into=into)
    before = rows_of(into)
    fill_before(where)
    if "npy" in where:  # as a large collection has it
        monkeypatch.setattr("indexer.store.vectors.FLAT_UP_TO_BYTES", 0)

    with pytest.raises(StorageError, match=r"(?i)no space left on device|disk full") as caught:
        run_index(videos, into=into)

    assert "\n" not in str(caught.value)
    if "vector" not in where and "keyword" not in where:
        assert rows_of(into) == before, "the last version is untouched"
        assert_sound(index)
    assert VideoIndex.open(index).search("black and white blocks").results, "a full disk can be searched"
    monkeypatch.undo()
    (disk / "filler").unlink()
    run_index(videos, into=into)
    run_index(videos, into="undisturbed")
    assert rows_of(into) == rows_of("undisturbed")
    assert_sound(index)
    compact(IndexStore.open(index), older_than_hours=0)
    assert rows_of(into) == rows_of("undisturbed")
    assert not [path for path in index.rglob("*") if path.name.endswith(".tmp")]


@pytest.mark.parametrize("where", ["indexer.store.compact:_merge", "indexer.store.compact:_commit"])
def test_full_disk_stops_compaction_and_changes_nothing(
    where, videos, disk, fill_before, run_index, rows_of, tmp_path, monkeypatch
):
    index = disk / "index"
    into = os.path.relpath(index, tmp_path)
    for video in ("a.mp4", "b.mkv"):
        run_index(videos / video, into=into)
    before = rows_of(into)
    fill_before(where)

    with pytest.raises(StorageError, match=r"(?i)no space left on device|disk full"):
        compact(IndexStore.open(index))

    assert rows_of(into) == before
    assert_sound(index)
    monkeypatch.undo()
    (disk / "filler").unlink()
    compact(IndexStore.open(index), older_than_hours=0)
    assert rows_of(into) == before


LIMITED = """
import resource, sys
from indexer.cli.app import main
import indexer.pipeline

indexer.pipeline._encode_on_ray = lambda items, settings, run: indexer.pipeline.encode_in_threads(items, settings, 1)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv.pop(1)),) * 2)
main()
"""


@pytest.mark.parametrize("max_bytes", [_slow(300), _slow(8_000), 10_500])
def test_limit_on_the_size_of_files_is_one_line_of_error_and_harms_nothing(
    max_bytes, videos, run_index, rows_of, tmp_path
):
    """As a full disk or a quota does, but it works without root: each file may have so many bytes."""
    arguments = ["index", str(videos), "--into", str(tmp_path / "index"), "--model", "tiny_test"]
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(max_bytes), *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=100,
    )

    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    assert "file too large" in done.stderr.splitlines()[-1].lower()
    run_index(videos)
    run_index(videos, into="undisturbed")
    assert rows_of() == rows_of("undisturbed")
    assert_sound(tmp_path / "index")


def test_read_only_index_can_be_searched_and_says_so_when_written(videos, disk, run_index, tmp_path):
    into = os.path.relpath(disk / "index", tmp_path)
    run_index(videos, into=into)
    if not mount("-o", "remount,ro", str(disk)):
        pytest.skip("remounting is not allowed here")

    assert VideoIndex.open(disk / "index").search("black and white blocks").results
    assert_sound(disk / "index")
    with pytest.raises(VideoBertSearchError, match="cannot be written: Read-only file system"):
        run_index(videos, into=into)
    with pytest.raises(VideoBertSearchError, match="cannot be written: Read-only file system"):
        compact(IndexStore.open(disk / "index"))
    with pytest.raises(VideoBertSearchError, match="Read-only file system"):
        run_index(videos, into=os.path.relpath(disk / "another", tmp_path))


def test_clock_that_goes_back_between_and_during_runs_loses_nothing(videos, run_index, rows_of, tmp_path, monkeypatch):
    real, ticks = time.time, iter(range(10**9))
    a_year_s = 365 * 24 * 3600.0
    os.utime(videos / "a.mp4", (real() + a_year_s,) * 2)
    monkeypatch.setattr(time, "time", lambda: real() + 5 * a_year_s)
    run_index(videos / "a.mp4")
    run_index(videos / "b.mkv")
    monkeypatch.setattr(time, "time", lambda: real() + a_year_s - 3600.0 * next(ticks))
    run_index(videos)
    compact(IndexStore.open(tmp_path / "index"))
    monkeypatch.undo()

    assert run_index(videos).unchanged == 3
    run_index(videos, into="undisturbed")
    assert rows_of() == rows_of("undisturbed")
    compact(IndexStore.open(tmp_path / "index"))
    assert rows_of() == rows_of("undisturbed")
    assert_sound(tmp_path / "index")


def _replace(path: Path, other: Path) -> None:
    shutil.copy(other, path.with_suffix(".new"))
    os.replace(path.with_suffix(".new"), path)


def _overwrite(path: Path, other: Path) -> None:
    """Other bytes of the same number in the same file, and the old time put back."""
    status = path.stat()
    with open(path, "r+b") as file:
        file.write(other.read_bytes().ljust(status.st_size, b"\0")[: status.st_size])
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def _truncate(path: Path, other: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def _delete(path: Path, other: Path) -> None:
    path.unlink()


@pytest.mark.parametrize("change", [_replace, _overwrite, _truncate, _delete])
@pytest.mark.parametrize("after_messages", [_slow(0), 3])
def test_file_that_changes_while_it_is_read_is_never_indexed_as_a_mixture(
    change, after_messages, videos, synthetic, run_index, rows_of, tmp_path, monkeypatch
):
    """Changed when its fingerprint has been taken and nothing, or three frames of twelve, have been decoded."""
    other = Path(synthetic.write("other.mp4", range(0, 11_000, 100), numbers=range(500, 610)))

    class Disturbed(GuardedDecoder):
        def read_video(self, path: str, **options: Any) -> Iterator[Any]:
            disturb = Path(path).name == "a.mp4"
            if disturb and after_messages == 0:
                change(Path(path), other)
            for number, message in enumerate(super().read_video(path, **options), 1):
                yield message
                if disturb and number == after_messages:
                    change(Path(path), other)

    monkeypatch.setattr(indexer.batches, "GuardedDecoder", Disturbed)
    run = run_index(videos)
    monkeypatch.undo()

    assert (run.indexed, run.failed) == (2, 1)
    assert {Path(row["uri"]).name for row in rows_of()} == {"b.mkv", "c.avi"}
    (failed,) = IndexStore.open(tmp_path / "index").ledger.snapshot().failed.to_pylist()
    assert (failed["error_stage"], failed["error_kind"]) == ("read", "ChangedWhileRead")
    run_index(videos, prune=True)
    run_index(videos, into="undisturbed")
    assert rows_of() == rows_of("undisturbed")
    assert_sound(tmp_path / "index")


def test_file_that_changes_before_it_is_read_is_indexed_as_it_is_then(
    videos, run_index, rows_of, monkeypatch, tmp_path
):
    """Between listing and reading: the row holds the listed size, so the next run looks again, and finds it known."""
    real = indexer.batches.BatchEncoder.encode

    def encode(self: Any, items: Any) -> Any:
        shutil.copy(videos / "b.mkv", videos / "a.mp4")
        return real(self, items)

    monkeypatch.setattr(indexer.batches.BatchEncoder, "encode", encode)
    run_index(videos / "a.mp4")
    monkeypatch.undo()

    assert run_index(videos / "a.mp4").unchanged == 1
    run_index(videos / "a.mp4", into="undisturbed")
    assert rows_of() == rows_of("undisturbed")
    assert_sound(tmp_path / "index")
